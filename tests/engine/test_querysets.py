"""Whatever the author's queryset does, each row that matches when its turn comes is visited once."""

from __future__ import annotations

import re

import pytest
from django.db import connections
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, Value, Window
from django.db.models.functions import Concat, Length, RowNumber, Upper
from django.db.models.lookups import LessThan
from django.test.utils import CaptureQueriesContext

from massmigration import BatchMigration, MapperMigration, executor, recorder
from massmigration.engine.pacing import LARGEST_WINDOW
from massmigration.engine.tables import filters_on
from massmigration.exceptions import ConfigurationError, InvalidDefinition
from tests.engine.support import AUTHOR, make, run, work
from tests.testapp.models import Child, City, Profile, SparseInt, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

CONTROL = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")


def make_mapper(get_rows, **attributes):
    class Writes(MapperMigration):
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return get_rows(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1

    for name, value in attributes.items():
        setattr(Writes, name, value)
    return Writes


def make_saver(get_rows, **attributes):
    class Saves(MapperMigration):
        def get_queryset(self, db_alias):
            return get_rows(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1
            row.save(update_fields=["visits"])

    for name, value in attributes.items():
        setattr(Saves, name, value)
    return Saves


def make_batch(get_rows, **attributes):
    class Updates(BatchMigration):
        def get_queryset(self, db_alias):
            return get_rows(db_alias)

        def operation(self, rows, db_alias):
            rows.update(visits=F("visits") + 1)

    for name, value in attributes.items():
        setattr(Updates, name, value)
    return Updates


MAKERS = (make_mapper, make_saver, make_batch)

# SQLite knows no locks, and so reads the rows of both kinds of mappers with the same statements.
MAKERS_AND_DATABASES = [
    (make_mapper, "default"),
    (make_batch, "default"),
    *(pytest.param(make_definition, "postgres", marks=pytest.mark.needs_postgres) for make_definition in MAKERS),
]


def get_visits(model, db_alias):
    return dict(model.objects.using(db_alias).values_list("pk", "visits"))


def make_cities(db_alias):
    """Make 40 cities; every second has tags, five at most, some of them twice the same word."""
    cities = City.objects.using(db_alias).bulk_create(
        [City(name=f"City {number}", flag=number % 3 == 0, note="x" * (number % 4)) for number in range(40)]
    )
    Tag.objects.using(db_alias).bulk_create(
        [Tag(city=city, word=f"w{n // 2}") for i, city in enumerate(cities) if i % 2 for n in range(i % 6 + 1)]
    )
    Profile.objects.using(db_alias).bulk_create([Profile(city=city, text="p") for city in cities[::5]])


QUERYSETS = {
    "all": City.objects.all,
    "ordered by another field": lambda: City.objects.order_by("-name"),
    "reversed": lambda: City.objects.order_by("pk").reverse(),
    "only": lambda: City.objects.only("name"),
    "only what is written": lambda: City.objects.only("visits"),
    "defer": lambda: City.objects.defer("note", "name"),
    "defer what is written": lambda: City.objects.defer("visits", "note"),
    "filter": lambda: City.objects.filter(flag=True),
    "filter on what is written": lambda: City.objects.filter(visits=0),
    "filters and excludes": lambda: City.objects.filter(flag=False).exclude(note="xx").filter(name__contains="1"),
    "Q objects": lambda: City.objects.filter(Q(flag=True) | ~Q(note="")),
    "or of two": lambda: City.objects.filter(flag=True) | City.objects.filter(note="xxx"),
    "a join that repeats": lambda: City.objects.filter(tags__word__in=["w0", "w1", "w2"]),
    "a join that repeats, distinct": lambda: City.objects.filter(tags__word__in=["w0", "w1", "w2"]).distinct(),
    "two joins that repeat": lambda: City.objects.filter(tags__word="w0").filter(tags__word__startswith="w"),
    "an exclude over a join": lambda: City.objects.exclude(tags__word="w1"),
    "distinct": City.objects.distinct,
    "an annotation": lambda: City.objects.annotate(title=Upper("name"), twice=F("visits") * 2),
    "a filter on an annotation": lambda: City.objects.annotate(size=Length("note")).filter(size__gt=1),
    "a constant": lambda: City.objects.annotate(one=Value(1)),
    "an aggregate": lambda: City.objects.annotate(tag_count=Count("tags")),
    "a filter on an aggregate": lambda: City.objects.annotate(tag_count=Count("tags")).filter(tag_count__gt=2),
    "an aggregate that is not selected": lambda: City.objects.alias(n=Count("tags")).filter(n__lte=2),
    "an aggregate of a filtered join": lambda: City.objects.filter(tags__word="w0").annotate(n=Count("tags")),
    "a subquery": lambda: City.objects.annotate(
        word=Subquery(Tag.objects.filter(city=OuterRef("pk")).order_by("word").values("word")[:1])
    ).filter(word="w0"),
    "exists": lambda: City.objects.filter(Exists(Tag.objects.filter(city=OuterRef("pk"), word="w1"))),
    "in a sliced subquery": lambda: City.objects.filter(pk__in=City.objects.order_by("-pk").values("pk")[:20]),
    "select_related, nullable": lambda: City.objects.select_related("profile"),
    "prefetch_related": lambda: City.objects.prefetch_related("tags"),
    "everything": lambda: (
        City.objects.select_related("profile")
        .prefetch_related("tags")
        .defer("note")
        .filter(tags__word__in=["w0", "w1"], flag=False)
        .annotate(title=Concat("name", Value("!")))
        .exclude(name="City 7")
        .order_by("tags__word", "name")
        .distinct()
    ),
    "none": City.objects.none,
    "nothing that matches": lambda: City.objects.filter(name="no such city"),
}


@pytest.mark.parametrize(("make_definition", "db_alias"), MAKERS_AND_DATABASES)
def test_each_matching_row_is_visited_once(db_alias, make_definition):
    make_cities(db_alias)
    everything = City.objects.using(db_alias)
    for number, (name, get_rows) in enumerate(QUERYSETS.items()):
        everything.update(visits=0)
        expected = {row.pk for row in get_rows().using(db_alias)}
        definition = make_definition(lambda alias, get=get_rows: get().using(alias), batch_size=25, shard_count=1)
        progress = run(make(definition, f"{number:04}_x"), db_alias)
        assert progress.status == "applied", (name, progress.error)
        assert get_visits(City, db_alias) == {pk: int(pk in expected) for pk in get_visits(City, db_alias)}, name
        assert (progress.processed, progress.total) == (len(expected), len(expected)), name


def test_related_objects_are_there_without_a_query_for_each(db_alias):
    seen = []

    class Cities(MapperMigration):
        batch_size = 20
        update_fields = ["note"]

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).select_related("profile").prefetch_related("tags")

        def operation(self, city, db_alias):
            city.note = " ".join(sorted(tag.word for tag in city.tags.all()))
            seen.append(getattr(city, "profile", None))

    class Tags(MapperMigration):
        batch_size = 20
        update_fields = ["word"]

        def get_queryset(self, db_alias):
            return Tag.objects.using(db_alias).select_related("city").only("word", "city__name")

        def operation(self, tag, db_alias):
            tag.word = tag.city.name
            seen.append(tag)

    make_cities(db_alias)
    for name, migration in (("0001_cities", Cities), ("0002_tags", Tags)):
        with CaptureQueriesContext(connections[db_alias]) as queries:
            progress = run(make(migration, name), db_alias)
        assert progress.status == "applied"
        reads = [query["sql"] for query in queries if query["sql"].startswith("SELECT") and "testapp_" in query["sql"]]
        assert len(reads) < progress.processed / 2
    assert City.objects.using(db_alias).get(name="City 3").note == "w0 w0 w1 w1"
    assert all(tag.word == tag.city.name for tag in Tag.objects.using(db_alias).select_related("city"))
    assert len(seen) == 40 + Tag.objects.using(db_alias).count()


def test_aggregates_and_prefetches_of_children(db_alias):
    for number in range(30):
        Child(title=f"T{number % 3}", detail="d").save(using=db_alias)

    def get_rows(alias):
        return Child.objects.using(alias).filter(title__in=["T0", "T1"], detail="d").annotate(size=Length("title"))

    for number, make_definition in enumerate(MAKERS):
        progress = run(make(make_definition(get_rows, batch_size=4), f"{number:04}_x"), db_alias)
        assert (progress.status, progress.processed) == ("applied", 20)
        visits = Child.objects.using(db_alias).values_list("title", "visits")
        assert set(visits) == {("T0", number + 1), ("T1", number + 1), ("T2", 0)}


@pytest.mark.parametrize("make_definition", MAKERS)
def test_rows_that_come_and_go_meanwhile(db_alias, make_definition):
    rows = SparseInt.objects.using(db_alias)
    rows.bulk_create([SparseInt(pk=number * 10) for number in range(-50, 50)])
    steps = []

    def change_rows():
        """After some batches: the cursor of the only range stands at about -400."""
        steps.append(max(rows.filter(visits=1).values_list("pk", flat=True), default=None))
        if len(steps) == 10:
            assert -480 < steps[-1] < 0
            rows.filter(pk__in=[-500, 10, 20, 490]).delete()
            rows.bulk_create([SparseInt(pk=key) for key in (-999, -499, 15, 10**6, 2**63 - 1)])

    definition = make_definition(SparseInt.objects.using, batch_size=5)
    progress = run(definition, db_alias, on_progress=change_rows)
    assert (progress.status, progress.processed) == ("applied", 100)
    assert len(steps) > 10
    visits = get_visits(SparseInt, db_alias)
    assert {pk for pk, count in visits.items() if count == 0} == {-999, -499}
    assert {pk for pk, count in visits.items() if count == 1} == (set(range(-490, 490, 10)) - {10, 20}) | {
        15,
        10**6,
        2**63 - 1,
    }


@pytest.mark.parametrize("make_definition", MAKERS)
def test_no_row_and_one_row(db_alias, make_definition):
    definition = make_definition(City.objects.using, shard_count=4)
    progress = run(make(definition, "0001_none"), db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 0, 0)
    City.objects.using(db_alias).create(name="one")
    progress = run(make(definition, "0002_one"), db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 1, 1)
    assert list(get_visits(City, db_alias).values()) == [1]


def test_an_operation_that_copies_its_object_skips_no_row(db_alias):
    class Copies(MapperMigration):
        batch_size = 10
        on_error = "skip"

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).exclude(note="copy")

        def operation(self, city, db_alias):
            City.objects.using(db_alias).filter(pk=city.pk).update(visits=F("visits") + 1)
            if city.name == "City 5":
                raise ValueError("not this one")
            city.pk, city.note = None, "copy"
            city.save(using=db_alias)

    make_cities(db_alias)
    progress = run(Copies, db_alias)
    assert (progress.status, progress.processed, progress.failed) == ("failed", 39, 1)
    cities = City.objects.using(db_alias)
    assert cities.exclude(note="copy").filter(visits=1).count() == 39
    assert cities.filter(note="copy").count() == 39


def test_an_object_that_a_join_repeats_is_retried_once(db_alias):
    raises = [True]

    class Migration(MapperMigration):
        on_error = "skip"

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(tags__word__in=["w0", "w1", "w2"])

        def operation(self, city, db_alias):
            City.objects.using(db_alias).filter(pk=city.pk).update(visits=F("visits") + 1)
            if city.name == "City 5" and raises[0]:
                raise ValueError("not this time")

    make_cities(db_alias)
    migration = make(Migration)
    assert run(migration, db_alias).failed == 1
    raises[0] = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 20)
    assert set(City.objects.using(db_alias).filter(tags__word="w0").values_list("visits", flat=True)) == {1}


REFUSALS = {
    "The queryset of testapp:0001_test is sliced. Leave the slice out and filter instead.": lambda rows: rows[:10],
    "The queryset of testapp:0001_test is a union, intersection or difference. Use Q objects in one filter "
    "instead.": lambda rows: rows.union(rows),
    "The queryset of testapp:0001_test is distinct on fields. Leave it out: each row is visited once "
    "anyway.": lambda rows: rows.distinct("name"),
    "The queryset of testapp:0001_test gives values instead of objects. Leave values() out; use only() to read "
    "fewer columns.": lambda rows: rows.values("name"),
    "The queryset of testapp:0001_test has a window function, which would start again in each batch. "
    "Compute it in prepare() or with a subquery.": lambda rows: rows.annotate(n=F("pk") + Window(RowNumber())),
    "get_queryset() of testapp:0001_test returned list. Return a QuerySet.": list,
    "get_queryset() of testapp:0001_test returned NoneType. Return a QuerySet.": lambda rows: None,
    "get_queryset() of testapp:0001_test returned RawQuerySet. Return a QuerySet.": lambda rows: City.objects.raw(
        "SELECT * FROM testapp_city"
    ),
    "get_queryset() of testapp:0001_test returned Manager. Return a QuerySet.": lambda rows: City.objects,
}
MORE_REFUSALS = [
    lambda rows: rows.values_list("pk", flat=True),
    lambda rows: rows.values("name").annotate(n=Count("pk")),
    lambda rows: rows.values_list("name", named=True),
    lambda rows: rows.annotate(n=Window(RowNumber())).filter(n=1),
    lambda rows: rows.filter(LessThan(Window(RowNumber(), order_by="pk"), 6)),
    lambda rows: rows.difference(rows.filter(pk=1)),
    lambda rows: rows.order_by("pk")[5:],
]


def check_refusal(definition, db_alias):
    with pytest.raises(InvalidDefinition) as refusal:
        executor.start(make(definition), db_alias, AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", db_alias) is None
    assert refusal.value.key == "testapp:0001_test"
    return str(refusal.value)


def test_what_cannot_work_is_refused_before_anything_is_written(db_alias):
    for make_definition in MAKERS:
        for sentence, get_rows in REFUSALS.items():
            definition = make_definition(lambda alias, get=get_rows: get(City.objects.using(alias)))
            assert check_refusal(definition, db_alias) == sentence
        for get_rows in MORE_REFUSALS:
            assert check_refusal(make_definition(lambda alias, get=get_rows: get(City.objects.using(alias))), db_alias)


@pytest.mark.needs_postgres
def test_a_queryset_of_another_database_is_refused(db_alias):
    other = "postgres" if db_alias == "default" else "default"
    for make_definition in MAKERS:
        assert check_refusal(make_definition(lambda alias: City.objects.using(other)), db_alias) == (
            f"The queryset of testapp:0001_test is bound to database '{other}', but the migration runs on "
            f"'{db_alias}'. Begin it with Model.objects.using(db_alias), or name the other one in other_database."
        )


def test_update_fields_that_cannot_be_written_are_refused(db_alias):
    def refuse(names, model=City):
        return check_refusal(make_mapper(model.objects.using, update_fields=names), db_alias)

    assert refuse(["visits", "color"]) == (
        "update_fields of testapp:0001_test names 'color', but testapp.City has no such column. Choose among: flag, "
        "id, name, note, slug, visits."
    )
    assert "names 'tags'" in refuse(["tags"])
    assert "names the primary key 'id', which identifies the row" in refuse(["id"])
    assert "names the primary key 'city_id'" in refuse(["city_id"], Profile)
    assert "names the primary key 'parent_ptr'" in refuse(["parent_ptr"], Child)
    assert "names the primary key 'id'" in refuse(["id"], Child)
    with pytest.raises(
        ConfigurationError, match=r"update_fields of testapp:0001_test is 'visits', but it has to be a list"
    ):
        refuse("visits")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (City.objects.filter(slug=""), True),
        (City.objects.exclude(slug="x", name="y"), True),
        (City.objects.filter(Q(name="x") | ~Q(slug__isnull=True)), True),
        (City.objects.annotate(size=Length("slug")).filter(size=0), True),
        (City.objects.filter(name=F("slug")), True),
        (City.objects.all(), False),
        (City.objects.filter(name="slug"), False),
        (City.objects.annotate(size=Length("slug")), False),
        (City.objects.filter(tags__word="x"), False),
    ],
)
def test_whether_a_queryset_filters_on_a_field_that_is_written(rows, expected):
    assert filters_on(rows, {"slug"}) is expected


def test_whether_a_child_filters_on_its_parents_field():
    assert filters_on(Child.objects.filter(title=""), {"title"})
    assert filters_on(Tag.objects.filter(city=1), {"city_id"})
    assert not filters_on(Child.objects.filter(title=""), {"detail"})
    assert not filters_on(Tag.objects.filter(city__name=""), {"word"})


MANY = 400_000
MANY_ROWS = {
    "default": "INSERT INTO testapp_city (id, name, slug, flag, visits, note) WITH RECURSIVE n(i) AS (SELECT 1 "
    f"UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) SELECT i, 'c', '', i % {MANY // 10} = 0, 0, '' FROM n",
    "postgres": "INSERT INTO testapp_city (id, name, slug, flag, visits, note) "
    f"SELECT i, 'c', '', i % {MANY // 10} = 0, 0, '' FROM generate_series(1, {MANY}) AS i",
}


def test_ten_of_many_rows_are_found_without_a_scan_of_the_table(db_alias):
    windows = []
    connection = connections[db_alias]
    with connection.cursor() as cursor:
        cursor.execute(MANY_ROWS[db_alias])
        if db_alias == "postgres":
            cursor.execute("ANALYZE testapp_city")
    make_definition = {"default": make_mapper, "postgres": make_batch}[db_alias]
    definition = make_definition(lambda alias: City.objects.using(alias).filter(flag=True), shard_count=1)
    with CaptureQueriesContext(connection) as queries:
        progress = run(definition, db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 10, 10)
    assert City.objects.using(db_alias).filter(visits=1, flag=True).count() == 10
    for query in queries:
        if re.search(r'^SELECT .* WHERE .*"flag"', query["sql"]) and "COUNT(*)" not in query["sql"]:
            windows.append(get_looked_at(connection, query["sql"]))
    assert sum(windows) >= MANY
    assert max(windows) <= LARGEST_WINDOW + 1
    assert len(queries) < 200


def get_looked_at(connection, sql):
    """Return how many rows a query goes through: the keys between its bounds, read by the key's index alone."""
    with connection.cursor() as cursor:
        cursor.execute(("EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + sql)
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "Index Cond: " in plan or "SEARCH testapp_city USING INTEGER PRIMARY KEY" in plan
    after = re.search(r'"id" > (\d+)', sql)
    upto = re.search(r'"id" <= (\d+)', sql)
    return (int(upto[1]) if upto else MANY) - (int(after[1]) if after else 0)
