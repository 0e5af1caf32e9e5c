"""G9 where rows are compared: all that was loaded counts, in every table of the object, and however it was loaded."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connections, models, transaction

from massmigration import MapperMigration
from massmigration.databases.writeback import get_fields
from massmigration.engine.snapshots import Snapshot
from tests.conftest import needs_postgres
from tests.engine.support import in_threads, run
from tests.engine.tables import Extra, make_tables
from tests.testapp.models import City, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class Grandparent(Extra):
    title = models.CharField(max_length=30, default="")
    label = models.CharField(max_length=30, default="")


class Middle(Grandparent):
    detail = models.CharField(max_length=30, default="")


class Grandchild(Middle):
    text = models.CharField(max_length=30, default="")


class SideBranch(Grandparent):
    """Its key is its own, and not the parent's."""

    number = models.AutoField(primary_key=True)
    parent = models.OneToOneField(Grandparent, models.CASCADE, parent_link=True)
    text = models.CharField(max_length=30, default="")


class SideLeaf(SideBranch):
    more = models.CharField(max_length=30, default="")


FAMILY = (Grandparent, Middle, Grandchild, SideBranch, SideLeaf)


def make_migration(rows, names, change):
    class Migration(MapperMigration):
        update_fields = names
        lock_rows = False
        serial = True

        def get_queryset(self, db_alias):
            return rows(db_alias)

        def operation(self, obj, db_alias):
            change(obj, db_alias)

    return Migration


@pytest.fixture
def family(db_alias):
    with make_tables(db_alias, *FAMILY):
        for _ in range(2):  # so that the keys of the tables are not the same
            Grandparent().save(using=db_alias)
        for model in (Grandchild, SideLeaf):
            for number in range(3):
                model(title=f"t{number}").save(using=db_alias)
        yield


def get_tables(model):
    return [model, *model._meta.all_parents]


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
@pytest.mark.parametrize("model", [Grandchild, SideLeaf])
def test_the_rows_of_all_ancestors_are_locked_once_they_are_compared(family, db_alias, model):
    objects = list(model.objects.using(db_alias).order_by("pk"))
    snapshot = Snapshot(objects, get_fields(model, ["title"], "x"))

    def edit(table, pk):
        with transaction.atomic(using=db_alias), connections[db_alias].cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '200ms'")
            models.QuerySet(table, using=db_alias).filter(pk=pk).update(**{table._meta.fields[-1].name: "site"})

    with transaction.atomic(using=db_alias):
        assert snapshot.find_stale(objects, db_alias) == set()
        for table in get_tables(model):
            pk = getattr(objects[1], table._meta.pk.attname)
            with pytest.raises(DatabaseError, match="lock timeout"):
                in_threads(lambda table=table, pk=pk: edit(table, pk))


@pytest.mark.parametrize("model", [Grandchild, SideLeaf])
@pytest.mark.parametrize("only", [(), ("text",), ("label", "text")])
def test_an_edit_of_a_grandparent_is_kept(family, db_alias, model, only):
    edited = []

    def change(obj, alias):
        if obj.title == "t1" and not edited:
            edited.append(obj)
            rows = Grandparent.objects.using(alias).filter(title="t1", pk=obj.id)
            in_threads(lambda: rows.update(title="site"))
        obj.title = obj.title.upper()

    rows = (lambda alias: model.objects.using(alias).only(*only)) if only else model.objects.using
    assert run(make_migration(rows, ["title"], change), db_alias).status == "applied"
    assert sorted(model.objects.using(db_alias).values_list("title", flat=True)) == ["SITE", "T0", "T2"]


@pytest.fixture
def tags(db_alias):
    for number in range(3):
        city = City.objects.using(db_alias).create(name=f"c{number}")
        Tag.objects.using(db_alias).create(city=city, word=f"w{number}")
    return Tag.objects.using(db_alias)


LOADS = {
    "defer attname": lambda rows: rows.defer("city_id"),
    "defer name": lambda rows: rows.defer("city"),
    "defer both": lambda rows: rows.defer("city_id", "visits"),
    "only": lambda rows: rows.only("word"),
    "only attname": lambda rows: rows.only("city_id"),
    "only pk": lambda rows: rows.only("pk"),
    "twice": lambda rows: rows.only("word", "city").defer("city_id"),
}


@pytest.mark.parametrize(
    ("db_alias", "names"), [("default", ["city"]), pytest.param("postgres", ["city_id"], marks=needs_postgres)]
)
@pytest.mark.parametrize("load", LOADS)
def test_a_reference_that_was_deferred_is_compared(tags, db_alias, load, names):
    home, site = City.objects.using(db_alias).bulk_create([City(name="home"), City(name="site")])
    edited = []

    def change(tag, alias):
        city_id = tag.city_id
        if tag.pk == edited_pk and not edited:
            edited.append(tag)
            rows = Tag.objects.using(alias).filter(pk=tag.pk)
            in_threads(lambda: rows.update(city=site))
        if city_id != site.pk:
            tag.city_id = home.pk

    edited_pk = tags.earliest("pk").pk
    progress = run(make_migration(lambda alias: LOADS[load](Tag.objects.using(alias)), names, change), db_alias)
    assert progress.status == "applied"
    assert tags.get(pk=edited_pk).city_id == site.pk
    assert set(tags.exclude(pk=edited_pk).values_list("city", flat=True)) == {home.pk}


@pytest.mark.parametrize("how", ["read", "refreshed", "prefetched"])
def test_what_the_operation_loads_itself_is_compared(tags, db_alias, how):
    edited = []

    def change(tag, alias):
        if how == "refreshed":
            tag.refresh_from_db(fields=["word"])
        word = tag.word
        if word == "w1" and not edited:
            edited.append(tag)
            rows = Tag.objects.using(alias).filter(pk=tag.pk)
            in_threads(lambda: rows.update(word="w9"))
        tag.visits = int(word[1:]) + 100

    def get_rows(alias):
        rows = Tag.objects.using(alias).defer("word")
        return rows.prefetch_related("city") if how == "prefetched" else rows

    assert run(make_migration(get_rows, ["visits"], change), db_alias).status == "applied"
    assert sorted(tags.values_list("word", "visits")) == [("w0", 100), ("w2", 102), ("w9", 109)]


def test_a_deferred_field_that_is_only_set_ends_the_run_all_the_same(tags, db_alias):
    def change(tag, alias):
        tag.word = "set, and never written"
        tag.visits = 1

    progress = run(make_migration(lambda alias: Tag.objects.using(alias).defer("word"), ["visits"], change), db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 3, 3)
    assert sorted(tags.values_list("word", "visits")) == [("w0", 1), ("w1", 1), ("w2", 1)]


def test_a_parents_field_that_was_deferred_is_compared(family, db_alias):
    edited = []

    def change(obj, alias):
        if not edited:
            edited.append(obj)
            rows = Grandparent.objects.using(alias).filter(pk=obj.pk)
            in_threads(lambda: rows.update(title="site"))
        obj.title = f"{obj.title}!"

    rows = lambda alias: Grandchild.objects.using(alias).defer("title", "label")  # noqa: E731
    assert run(make_migration(rows, ["title"], change), db_alias).status == "applied"
    titles = Grandchild.objects.using(db_alias).order_by("pk").values_list("title", flat=True)
    assert list(titles) == ["site!", "t1!", "t2!"]
