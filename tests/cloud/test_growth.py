"""The open end of the last range on Datastore and Firestore, where no query finds the largest key."""

from __future__ import annotations

import uuid

import pytest

from massmigration import MapperMigration, executor
from massmigration.databases.documents.keys import StoreKeys
from massmigration.databases.documents.keyspace import HIGHEST_INTEGER
from massmigration.engine.tables import get_table
from tests.cloud.app.models import Number, Row, Token, Word
from tests.cloud.filling import store_rows
from tests.cloud.support import make
from tests.engine.support import AUTHOR, run, work

COUNT = 12


def count_reads(looks, read):
    def note(reader, *args):
        looks.append(args)
        return read(reader, *args)

    return note


class Copies(MapperMigration):
    """It stores a copy of each row behind all others."""

    batch_size = 6
    shard_count = 1
    model: type = Number

    def get_queryset(self, db_alias):
        return self.model.objects.using(db_alias)

    def operation(self, obj, db_alias):
        self.model.objects.using(db_alias).filter(pk=obj.pk).update(visits=1)
        Number.objects.using(db_alias).create(pk=obj.pk + 1_000)


@pytest.mark.parametrize(
    ("model", "keys", "after"),
    [
        (Number, [1], None),
        (Number, [-7, -3, 5, 2**40], 5),
        (Number, [5, 6, HIGHEST_INTEGER], None),
        (Row, [3, 4, 10**12], None),
        (Number, [*range(1, 400)], None),
        (Number, [*range(-200, 0), *range(10**9, 10**9 + 200)], None),
        (Number, [number * 2**53 for number in range(1, 600)], None),
        (Token, [uuid.UUID(int=number**15) for number in range(1, 300)], None),
        (Token, [uuid.UUID(int=number) for number in (1, 9, 10**30, 2**127)], None),
    ],
)
def test_the_largest_key_is_found_whatever_lies_between(db_alias, monkeypatch, model, keys, after):
    store_rows(model, keys, db_alias)

    class Migration(Copies):
        pass

    Migration.model = model
    table = get_table(make(Migration), db_alias)
    monkeypatch.setattr(StoreKeys, "read", count_reads(looks := [], StoreKeys.read))
    assert table.database.find_largest(table.queryset, after) == (True, keys[-1])
    assert len(looks) <= 40
    assert table.database.find_largest(table.queryset, keys[-1]) == (True, None)


def test_an_operation_that_stores_rows_ahead_fails_and_can_be_bounded(db_alias):
    store_rows(Number, range(1, COUNT + 1), db_alias)
    migration = make(Copies)
    progress = run(migration, db_alias, should_stop=lambda: Number.objects.using(db_alias).count() > 20 * COUNT)
    assert (progress.status, progress.reason) == ("failed", "not_empty")
    assert "bounded = True" in progress.error
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(make(Copies, bounded=True), db_alias).status == "applied"


def test_a_bounded_migration_visits_what_was_there_when_it_was_planned(db_alias):
    store_rows(Number, range(1, COUNT + 1), db_alias)
    progress = run(make(Copies, bounded=True), db_alias)
    assert (progress.status, progress.processed) == ("applied", COUNT)


def test_bounded_is_refused_where_the_largest_key_cannot_be_found(db_alias):
    store_rows(Word, ["a", "b"], db_alias)

    class Migration(Copies):
        model = Word
        bounded = True

    progress = run(make(Migration), db_alias)
    assert progress.status == "failed"
    assert "Leave bounded out" in progress.error
