"""Failures that a person accepts on Datastore and Firestore: in parts that a transaction can hold, and all of them."""

from __future__ import annotations

import uuid

import pytest

from massmigration import CustomMigration, executor, recorder
from massmigration.exceptions import IllegalMove
from massmigration.executor.accept import accept
from massmigration.models import MigrationFailure
from tests.cloud.app.models import Row
from tests.cloud.filling import store
from tests.cloud.support import Save, Visit, get_visits, make, make_rows, quick, traffic  # noqa: F401
from tests.engine.support import AUTHOR, change, in_threads, run, work


class Mapper(Visit):
    batch_size = 20

    def operation(self, row, db_alias):
        if row.note == "bad":
            raise ValueError(f"{row.name} is bad")
        super().operation(row, db_alias)


class Custom(CustomMigration):
    def get_shards(self, db_alias):
        return ["one"]

    def get_items(self, shard, cursor, db_alias):
        rows = Row.objects.using(db_alias).order_by("pk")
        for row in rows if cursor is None else rows.filter(pk__gt=cursor):
            yield row.pk, row.pk

    def operation(self, pk, db_alias):
        row = Row.objects.using(db_alias).get(pk=pk)
        if row.note == "bad":
            raise ValueError(f"{row.name} is bad")
        Save.operation(self, row, db_alias)


def fill(db_alias: str, *, good: int, bad: int) -> None:
    make_rows(db_alias, good)
    make_rows(db_alias, bad, note="bad")


def take(migration, db_alias, ids=None):
    return accept(migration, db_alias, AUTHOR, "They are gone", ids, enqueue=False)


def get_failures(migration, db_alias):
    return recorder.get_failures(recorder.get_record(migration.key, db_alias).attempt_uuid, db_alias)


def test_some_and_then_the_others_and_the_run_goes_on_to_its_end(db_alias):
    fill(db_alias, good=5, bad=2)
    migration = make(Mapper, on_error="skip")
    assert run(migration, db_alias).reason == "failures_open"
    first, _ = get_failures(migration, db_alias)
    done = take(migration, db_alias, [first.pk])
    assert (done.accepted_count, done.open_count, done.goes_on, done.record.status) == (1, 1, False, "failed")
    assert take(migration, db_alias).goes_on
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 5)
    assert get_visits(db_alias) == {1: 5, 0: 2}


@pytest.mark.parametrize("definition", [Mapper, Custom])
def test_an_object_that_stopped_the_run_is_passed_by(db_alias, definition):
    fill(db_alias, good=3, bad=2)
    migration = make(definition)
    for accepted in (1, 2):
        progress = run(migration, db_alias) if accepted == 1 else work(migration, db_alias)
        assert (progress.reason, progress.acceptable) == ("operation_error", 1)
        assert take(migration, db_alias).goes_on
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == {1: 3, 0: 2}


def test_more_than_a_transaction_can_write(db_alias):
    fill(db_alias, good=1, bad=1)
    migration = make(Mapper, on_error="skip")
    run(migration, db_alias)
    (failure,) = get_failures(migration, db_alias)
    store(
        (
            MigrationFailure(
                id=uuid.uuid4().hex,
                attempt_uuid=failure.attempt_uuid,
                key=failure.key,
                shard_id=failure.shard_id,
                object_key=str(number),
                error_class="ValueError",
                is_passed=True,
            )
            for number in range(1, 450)
        ),
        db_alias,
    )
    done = take(migration, db_alias)
    assert (done.accepted_count, done.open_count, done.goes_on) == (450, 0, True)
    events = [event for event in recorder.get_events(migration.key, db_alias, 50) if event.action == "accept"]
    assert sum(event.parameters["count"] for event in events) == 450
    assert work(migration, db_alias).status == "applied"


def test_against_a_retry_one_wins(db_alias):
    fill(db_alias, good=1, bad=3)
    migration = make(Mapper, on_error="skip")
    run(migration, db_alias)

    def retry() -> bool:
        try:
            executor.retry(migration, db_alias, AUTHOR, enqueue=False)
        except IllegalMove:
            return False
        return True

    done, is_retried = in_threads(lambda: take(migration, db_alias), retry)
    assert (done.accepted_count, is_retried) in [(3, False), (0, True)]
    assert {failure.status for failure in get_failures(migration, db_alias)} == {
        "retried" if is_retried else "accepted"
    }


def test_rows_that_are_accepted_are_not_waited_for(db_alias):
    fill(db_alias, good=2, bad=1)
    rows = make(Mapper, on_error="skip", until_empty=True)
    change(rows, get_queryset=lambda db_alias: Row.objects.using(db_alias).filter(visits=0))
    run(rows, db_alias)
    take(rows, db_alias)
    progress = work(rows, db_alias)
    assert progress.status == "applied"
    assert {shard.pass_number for shard in progress.shard_rows} == {1}
