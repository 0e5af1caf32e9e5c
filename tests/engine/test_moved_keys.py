"""The site changes primary keys while a worker waits for the rows' locks: every row is still visited, once."""

from __future__ import annotations

import threading

import pytest
from django.db import connections, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Concat

from massmigration import BatchMigration, MapperMigration
from tests.engine.support import make, run, wait_until_waited_for
from tests.testapp.models import City, CompositeRow, TextRow

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.needs_postgres,
]

ALIAS = "postgres"
COUNT = 150
SIZE = 30


class Listed(MapperMigration):
    update_fields = ["visits"]

    def operation(self, obj, db_alias):
        obj.visits += 1


class Saving(MapperMigration):
    def operation(self, obj, db_alias):
        obj.visits += 1
        obj.save(update_fields=["visits"])


class Batched(BatchMigration):
    def operation(self, queryset, db_alias):
        queryset.update(visits=F("visits") + 1)


def make_rows(model):
    if model is City:
        rows = [City(pk=number, name="a") for number in range(1, COUNT + 1)]
    elif model is TextRow:
        rows = [TextRow(pk=f"k{number:04}", text="a") for number in range(1, COUNT + 1)]
    else:
        rows = [CompositeRow(tenant="a", number=number, text="a") for number in range(1, COUNT + 1)]
    model.objects.using(ALIAS).bulk_create(rows)


def choose(model, number):
    rows = model.objects.using(ALIAS)
    if model is CompositeRow:
        return rows.filter(tenant="a", number=number)
    return rows.filter(pk=number if model is City else f"k{number:04}")


AHEAD = {
    City: {"id": F("id") + 10_000},
    TextRow: {"id": Concat(Value("k9"), F("id"))},
    CompositeRow: {"number": F("number") + 10_000},
}


class Site(threading.Thread):
    """Changes keys in a transaction that stays open until the worker waits for it."""

    def __init__(self, model, numbers, changes):
        super().__init__()
        self.model, self.numbers, self.changes = model, numbers, changes
        self.has_begun = threading.Event()
        self.was_waited_for = False

    def run(self):
        with transaction.atomic(using=ALIAS):
            self.change()
            self.has_begun.set()
            self.was_waited_for = wait_until_waited_for(ALIAS)
        connections[ALIAS].close()

    def change(self):
        for number in self.numbers:
            choose(self.model, number).update(**self.changes)


def work_meanwhile(definition, site, **attributes):
    site.start()
    assert site.has_begun.wait(10)
    migration = make(type("Migration", (definition,), {"batch_size": SIZE, "shard_count": 1, **attributes}))
    try:
        progress = run(migration, ALIAS)
    finally:
        site.join()
    assert site.was_waited_for
    return progress


def get_visits(model):
    return sorted(model.objects.using(ALIAS).values_list("visits", flat=True))


@pytest.mark.parametrize("definition", [Listed, Saving, Batched])
@pytest.mark.parametrize("model", [City, TextRow, CompositeRow])
@pytest.mark.parametrize("is_filtered", [False, True])
def test_rows_whose_keys_move_ahead_become_no_cursor(definition, model, is_filtered):
    def get_queryset(self, db_alias):
        rows = model.objects.using(db_alias)
        if not is_filtered:
            return rows
        return rows.filter(name="a") if model is City else rows.filter(text="a")

    make_rows(model)
    changes = AHEAD[model]
    numbers = [1, SIZE - 1, SIZE, SIZE + 5]
    progress = work_meanwhile(definition, Site(model, numbers, changes), get_queryset=get_queryset)
    assert (progress.status, progress.failed) == ("applied", 0)
    assert get_visits(model) == [1] * COUNT


@pytest.mark.parametrize("definition", [Listed, Saving, Batched])
def test_rows_that_move_within_their_batch_are_visited_once(definition):
    make_rows(TextRow)
    site = Site(TextRow, [3, SIZE], {"id": Concat(Value("k0004"), F("id"))})
    progress = work_meanwhile(definition, site, get_queryset=lambda self, db_alias: TextRow.objects.using(db_alias))
    assert progress.status == "applied"
    assert get_visits(TextRow) == [1] * COUNT


@pytest.mark.parametrize("definition", [Listed, Saving, Batched])
def test_the_last_row_of_all_is_visited_although_its_key_moves_ahead(definition):
    make_rows(City)
    site = Site(City, [COUNT], {"id": F("id") + 10_000})
    progress = work_meanwhile(definition, site, get_queryset=lambda self, db_alias: City.objects.using(db_alias))
    assert progress.status == "applied"
    assert get_visits(City) == [1] * COUNT


@pytest.mark.parametrize("definition", [Listed, Saving, Batched])
def test_rows_that_move_within_the_window_of_a_filter_become_no_cursor(definition):
    """A window holds a hundred keys at least, so that a batch of five ends far before it."""
    make_rows(TextRow)
    site = Site(TextRow, [5], {"id": Concat(Value("k0050"), F("id"))})
    progress = work_meanwhile(
        definition,
        site,
        get_queryset=lambda self, db_alias: TextRow.objects.using(db_alias).filter(text="a"),
        batch_size=5,
    )
    assert progress.status == "applied"
    assert get_visits(TextRow) == [1] * COUNT


@pytest.mark.parametrize("definition", [Listed, Batched])
def test_a_row_that_moves_ahead_of_a_selective_filter_becomes_no_cursor(definition):
    make_rows(TextRow)
    kept = [f"k{number:04}" for number in range(10, COUNT, 10)]
    TextRow.objects.using(ALIAS).exclude(pk__in=kept).update(text="left out")
    site = Site(TextRow, [10, 20], {"id": Concat(Value("k0095"), F("id"))})
    progress = work_meanwhile(
        definition,
        site,
        get_queryset=lambda self, db_alias: TextRow.objects.using(db_alias).filter(text="a"),
        batch_size=2,
    )
    assert progress.status == "applied"
    assert set(TextRow.objects.using(ALIAS).filter(text="a").values_list("visits", flat=True)) == {1}
    assert set(TextRow.objects.using(ALIAS).exclude(text="a").values_list("visits", flat=True)) == {0}


@pytest.mark.parametrize("definition", [Listed, Batched])
@pytest.mark.parametrize("prefix", ["k00", "k0034", "k0095"])
def test_rows_that_move_within_the_window_of_a_selective_filter_are_visited_once(definition, prefix):
    """A batch that is not full would end with its window, behind the new places of these rows."""
    make_rows(TextRow)
    kept = [f"k{number:04}" for number in range(10, COUNT, 10)]
    TextRow.objects.using(ALIAS).exclude(pk__in=kept).update(text="left out")
    site = Site(TextRow, [20, 30], {"id": Concat(Value(prefix), F("id"))})
    progress = work_meanwhile(
        definition,
        site,
        get_queryset=lambda self, db_alias: TextRow.objects.using(db_alias).filter(text="a"),
    )
    assert progress.status == "applied"
    assert set(TextRow.objects.using(ALIAS).filter(text="a").values_list("visits", flat=True)) == {1}
    assert set(TextRow.objects.using(ALIAS).exclude(text="a").values_list("visits", flat=True)) == {0}


@pytest.mark.parametrize("definition", [Listed, Batched])
def test_rows_of_a_grouped_queryset_that_move_within_their_batch_are_visited_once(definition):
    make_rows(TextRow)
    progress = work_meanwhile(
        definition,
        Site(TextRow, [3], {"id": Concat(Value("k0010"), F("id"))}),
        get_queryset=lambda self, db_alias: TextRow.objects.using(db_alias).annotate(rows=Count("id")),
    )
    assert progress.status == "applied"
    assert get_visits(TextRow) == [1] * COUNT


@pytest.mark.parametrize("definition", [Listed, Batched])
def test_rows_of_a_grouped_queryset_whose_keys_move_are_visited_once(definition):
    make_rows(City)
    site = Site(City, [1, SIZE], {"id": F("id") + 10_000})
    progress = work_meanwhile(
        definition,
        site,
        get_queryset=lambda self, db_alias: City.objects.using(db_alias).annotate(words=Count("tags")),
    )
    assert progress.status == "applied"
    assert get_visits(City) == [1] * COUNT


def test_a_row_that_takes_the_key_of_another_is_not_worked_without_its_lock():
    """Two rows swap their keys while the worker waits: what has the key now was never locked."""
    make_rows(City)

    class Swap(Site):
        def change(self):
            for old, new in ((SIZE, -1), (120, SIZE), (-1, 120)):
                choose(City, old).update(id=new)

    progress = work_meanwhile(
        Listed,
        Swap(City, [], {}),
        get_queryset=lambda self, db_alias: City.objects.using(db_alias).annotate(words=Count("tags")),
    )
    assert progress.status == "applied"
    assert max(get_visits(City)) == 1
    assert sum(get_visits(City)) >= COUNT - 1  # the one that went behind the cursor is another's concern
