"""The moves that persons make: legal or refused in one sentence, one winner each."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from massmigration import MapperMigration, executor, recorder, states
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord, MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR, claim_range, in_threads, make, start, work
from tests.executor.support import CountVisits, act, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

SIGNALS = {action.signal for action in states.ACTIONS.values() if action.signal}


def put_into(status: str, migration: MapperMigration, db_alias: str) -> None:
    """Bring the record into a status, with an attempt that has an open range."""
    if status == states.NOT_RUN:
        return
    start(migration, db_alias)
    if status != states.ENQUEUED:
        claim_range(migration, db_alias)
    MigrationRecord.objects.using(db_alias).update(status=status)
    past = timezone.now() - timedelta(minutes=1)
    MigrationShard.objects.using(db_alias).filter(status="running").update(lease_expires_at=past)


# A move that the table forbids is refused before anything is written, and so the same on every database.
CASES = [
    pytest.param(db_alias, action, status, marks=marks)
    for action in states.PERSONS_ACTIONS
    for status in (states.NOT_RUN, *states.STORED)
    for db_alias, marks in (("default", ()), ("postgres", needs_postgres))
    if db_alias == "default" or states.is_legal(action, status)
]


@pytest.mark.parametrize(("db_alias", "action", "status"), CASES)
def test_every_move_is_as_the_table_says(db_alias, action, status):
    make_cities(db_alias, 5)
    migration = make(CountVisits)
    put_into(status, migration, db_alias)
    if not states.is_legal(action, status):
        with pytest.raises(IllegalMove) as refusal:
            act(action, migration, db_alias)
        assert refusal.value.status == status
        assert states.LABELS[status] in str(refusal.value)
        assert migration.key in str(refusal.value)
        assert db_alias in str(refusal.value)
        record = recorder.get_record(migration.key, db_alias)
        assert (record.status if record else states.NOT_RUN) == status
        return
    act(action, migration, db_alias)
    record = recorder.get_record(migration.key, db_alias)
    target = states.MOVES[action].target or status
    assert (record.status if record else states.NOT_RUN) == target
    if action != "reset" and target in states.ACTIVE:
        assert work(migration, db_alias).status == "applied"
        assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_signals_are_sent_after_the_commit(db_alias):
    seen = []

    def receive(signal, **kwargs):
        seen.append((signal, kwargs["key"], kwargs["db_alias"], kwargs["actor"]))

    for signal in SIGNALS:
        signal.connect(receive)
    try:
        make_cities(db_alias, 5)
        migration = make(CountVisits)
        with transaction.atomic(using=db_alias):
            start(migration, db_alias)
            assert seen == []
        executor.pause(migration.key, db_alias, AUTHOR)
        executor.resume(migration, db_alias, AUTHOR, enqueue=False)
        work(migration, db_alias)
    finally:
        for signal in SIGNALS:
            signal.disconnect(receive)
    assert [entry[0] for entry in seen] == [
        states.ACTIONS[name].signal for name in ("start", "pause", "resume", "finish")
    ]
    assert {entry[1:3] for entry in seen} == {("testapp:0001_test", db_alias)}


def test_cancel_against_resume_one_wins(db_alias):
    make_cities(db_alias, 10)
    migration = make(CountVisits)
    start(migration, db_alias)
    executor.pause(migration.key, db_alias, AUTHOR)

    def attempt(action):
        def call():
            try:
                act(action, migration, db_alias)
                return action
            except IllegalMove as refusal:
                return refusal.status

        return call

    results = in_threads(attempt("cancel"), attempt("resume"))
    assert results in (["cancel", "resume"], ["cancel", "cancelled"])
    assert recorder.get_record(migration.key, db_alias).status == "cancelled"
