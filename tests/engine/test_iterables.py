"""Querysets of an author's own class: what they yield is compared with the rows that the database returned."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import F, QuerySet
from django.db.models.query import ModelIterable

from massmigration import BatchMigration, MapperMigration, RetryLater
from tests.engine.support import make, run
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

COUNT = 40


class LeavesOut(ModelIterable):
    """It hides every third object."""

    def __iter__(self):
        return (city for number, city in enumerate(super().__iter__()) if number % 3 != 2)


class LeavesAllOut(ModelIterable):
    def __iter__(self):
        return (city for city in super().__iter__() if city.name == "a")


class AddsOthers(ModelIterable):
    def __iter__(self):
        for city in super().__iter__():
            yield city
            if city.name == "5":
                yield City(pk=10**6, name="made up")


class TurnsRound(ModelIterable):
    def __iter__(self):
        return iter(list(super().__iter__())[::-1])


class Special(City):
    class Meta:
        proxy = True
        app_label = "testapp"


class Specific(ModelIterable):
    """As Wagtail's specific(): the same rows, as objects of other classes."""

    def __iter__(self):
        for city in super().__iter__():
            city.__class__ = Special
            yield city


class FetchesLess(QuerySet):
    def _fetch_all(self):
        super()._fetch_all()
        self._result_cache = (self._result_cache or [])[:-1]


class IteratesLess(QuerySet):
    def __iter__(self):
        return (city for number, city in enumerate(super().__iter__()) if number % 3 != 2)


class FiltersLater(QuerySet):
    """A class whose methods are its own, but which yields what the database returns."""

    def _clone(self):
        clone = super()._clone()
        clone.note = "kept"
        return clone

    def of_name(self, name):
        return self.filter(name=name)


def get_rows(db_alias, source):
    if issubclass(source, QuerySet):
        return source(City, using=db_alias)
    rows = City.objects.using(db_alias)
    rows = rows.all()
    rows._iterable_class = source
    return rows


class Listed(MapperMigration):
    batch_size = 10
    update_fields = ["visits"]
    source = ModelIterable

    def get_queryset(self, db_alias):
        return get_rows(db_alias, self.source)

    def operation(self, city, db_alias):
        city.visits += 1


class Saving(Listed):
    update_fields = ()

    def operation(self, city, db_alias):
        city.visits += 1
        city.save(update_fields=["visits"])


class Batched(BatchMigration):
    batch_size = 10
    source = ModelIterable

    def get_queryset(self, db_alias):
        return get_rows(db_alias, self.source)

    def operation(self, queryset, db_alias):
        queryset.update(visits=F("visits") + 1)


def make_cities(db_alias):
    City.objects.using(db_alias).bulk_create(City(name=str(number)) for number in range(COUNT))


def get_visits(db_alias):
    return sorted(City.objects.using(db_alias).exclude(name="made up").values_list("visits", flat=True))


@pytest.mark.parametrize("definition", [Listed, Saving])
@pytest.mark.parametrize("source", [LeavesOut, LeavesAllOut, AddsOthers, FetchesLess, IteratesLess])
@pytest.mark.parametrize("db_alias", ["default"])
def test_objects_that_are_not_the_rows_fail_the_run(db_alias, definition, source):
    make_cities(db_alias)
    progress = run(make(type("Migration", (definition,), {"source": source})), db_alias)
    assert progress.status == "failed"
    assert "are not the rows that the database returned" in progress.error


@pytest.mark.parametrize("definition", [Listed, Saving])
@pytest.mark.parametrize("source", [Specific, FiltersLater, TurnsRound])
@pytest.mark.parametrize(
    ("db_alias", "is_filtered"),
    [("default", False), ("default", True), pytest.param("postgres", True, marks=pytest.mark.needs_postgres)],
)
def test_the_same_rows_as_other_objects_or_in_another_order_are_visited_once(db_alias, definition, source, is_filtered):
    base: Any = definition

    class Migration(base):
        rests = 0

        def get_queryset(self, db_alias):
            rows = get_rows(db_alias, source)
            return rows.filter(note="") if is_filtered else rows

        def operation(self, city, db_alias):
            if city.name in ("7", "33") and Migration.rests < 2:  # so that a batch is cut between two objects
                Migration.rests += 1
                raise RetryLater(0.01, "a quota")
            super().operation(city, db_alias)

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed) == ("applied", 0)
    assert get_visits(db_alias) == [1] * COUNT


@pytest.mark.parametrize("source", [LeavesOut, FetchesLess, IteratesLess, FiltersLater])
def test_a_batch_of_keys_comes_from_the_rows_whatever_the_queryset_yields(db_alias, source):
    make_cities(db_alias)
    progress = run(make(type("Migration", (Batched,), {"source": source})), db_alias)
    assert (progress.status, progress.processed) == ("applied", COUNT)
    assert get_visits(db_alias) == [1] * COUNT


def test_rows_that_the_site_deletes_or_inserts_meanwhile_are_not_blamed_on_the_queryset(db_alias):
    class Deletes(ModelIterable):
        """It stands for a site that changes rows between the look at the keys and the look at the objects."""

        def __iter__(self):
            cities = list(super().__iter__())
            if len(cities) == 10 and cities[5].name == "5":
                City.objects.using(db_alias).filter(pk=cities.pop(5).pk).delete()
            return iter(cities)

    class Migration(Listed):
        source = Deletes

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", COUNT - 1)
    assert get_visits(db_alias) == [1] * (COUNT - 1)
