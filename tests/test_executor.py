"""The moves that persons make: legal or refused in one sentence, one winner each, nothing lost."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from massmigration import BaseMigration, MapperMigration, RetryLater, executor, recorder, states
from massmigration.backends.base import BaseBackend
from massmigration.databases.transactions import run_write
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.slice import LOST, Slice
from massmigration.exceptions import (
    BackendUnreachable,
    DatabaseNotAllowed,
    DependencyNotApplied,
    IllegalMove,
    InvalidDefinition,
)
from massmigration.executor.accept import accept
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 20

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias: str, count: int = 100) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def act(action: str, migration: MapperMigration, db_alias: str) -> None:
    if action in ("pause", "cancel", "reset"):
        getattr(executor, action)(migration.key, db_alias, AUTHOR)
    elif action == "fake":
        executor.fake(migration, db_alias, AUTHOR)
    elif action == "accept":
        accept(migration, db_alias, AUTHOR, "nothing has failed", enqueue=False)
    else:
        getattr(executor, action)(migration, db_alias, AUTHOR, enqueue=False)


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


@pytest.mark.parametrize("status", [states.NOT_RUN, *states.STORED])
@pytest.mark.parametrize("action", states.PERSONS_ACTIONS)
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


def test_reset_and_start_again_visits_every_row_again(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    run(migration, db_alias)
    executor.reset(migration.key, db_alias, AUTHOR)
    assert recorder.get_record(migration.key, db_alias) is None
    assert not MigrationShard.objects.using(db_alias).exists()
    assert run(migration, db_alias).processed == 100
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {2}
    assert MigrationAttempt.objects.using(db_alias).count() == 2


def test_pause_against_finish_either_wins_and_nothing_sticks(db_alias):
    make_cities(db_alias, 10)

    class Migration(CountVisits):
        asked = threading.Event()
        go_on = threading.Event()

        def verify(self, db_alias):
            self.asked.set()
            assert self.go_on.wait(30)

    migration = make(Migration)
    start(migration, db_alias)

    def pause():
        assert Migration.asked.wait(30)
        executor.pause(migration.key, db_alias, AUTHOR)
        Migration.go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.workers_alive) == ("paused", 0)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_an_object_that_fails_after_a_pause_leaves_no_failure_behind(db_alias):
    class Migration(CountVisits):
        entered = threading.Event()
        go_on = threading.Event()
        is_broken = True

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if self.is_broken:
                self.entered.set()
                assert self.go_on.wait(30)
                raise ValueError("broken")

    make_cities(db_alias, 10)
    migration = make(Migration)
    start(migration, db_alias)

    def pause():
        assert Migration.entered.wait(30)
        executor.pause(migration.key, db_alias, AUTHOR)
        Migration.go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.failed) == ("paused", 0)
    Migration.is_broken = False
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 10)


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


def test_a_late_slice_of_a_cancelled_attempt_changes_nothing(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    executor.cancel(migration.key, db_alias, AUTHOR)
    executor.reset(migration.key, db_alias, AUTHOR)
    start(migration, db_alias)
    runner = Slice(shard, migration, db_alias)
    runner._stops_between_batches = lambda: False  # as if the status were read too late
    assert runner.run() == LOST
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {0}
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_dependencies_have_to_be_applied(db_alias):
    class Needs(CountVisits):
        dependencies = [("testapp", "0001_first")]
        schema_dependencies = [("testapp", "0001_initial"), ("testapp", "9999_to_come")]

    first, migration = make(CountVisits, "0001_first"), make(Needs, "0002_second")
    with pytest.raises(DependencyNotApplied, match="testapp:0001_first") as refusal:
        executor.start(migration, db_alias, AUTHOR, enqueue=False)
    assert refusal.value.missing == ["testapp:0001_first", "testapp.9999_to_come"]
    Needs.schema_dependencies = [("testapp", "0001_initial")]
    start(first, db_alias)
    with pytest.raises(DependencyNotApplied):  # running is not applied
        executor.start(migration, db_alias, AUTHOR, enqueue=False)
    executor.cancel(first.key, db_alias, AUTHOR)
    executor.fake(first, db_alias, AUTHOR)
    assert run(migration, db_alias).status == "applied"


def test_a_database_that_is_not_allowed_is_refused(db_alias):
    class Elsewhere(CountVisits):
        allowed_db_aliases = ["nowhere"]

    with pytest.raises(DatabaseNotAllowed, match="does not run on database"):
        executor.start(make(Elsewhere), db_alias, AUTHOR)
    with pytest.raises(DatabaseNotAllowed, match="There is no database 'typo'"):
        executor.start(make(CountVisits), "typo", AUTHOR)


def test_before_start_may_refuse_and_nothing_is_written(db_alias):
    class Migration(CountVisits):
        def before_start(self, db_alias):
            raise InvalidDefinition("Not on a Friday.")

    with pytest.raises(InvalidDefinition, match="Not on a Friday"):
        executor.start(make(Migration), db_alias, AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", db_alias) is None
    assert recorder.get_events("testapp:0001_test", db_alias, 10) == []


class DownBackend(BaseBackend):
    """A queue that cannot be reached until somebody mends it."""

    is_down = True
    has_workers = True

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        if self.is_down:
            raise ConnectionError("connection refused")


def test_an_unreachable_queue_fails_the_record_and_a_retry_goes_on(db_alias):
    class Migration(CountVisits):
        backend = f"{__name__}.DownBackend"

    make_cities(db_alias, 10)
    migration = make(Migration)
    with pytest.raises(BackendUnreachable, match="connection refused"):
        executor.start(migration, db_alias, AUTHOR)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.reason) == ("failed", "backend_unreachable")
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_in_a_requests_transaction_the_launch_waits_for_the_commit(db_alias):
    class Migration(CountVisits):
        backend = f"{__name__}.DownBackend"

    with transaction.atomic(using=db_alias):
        executor.start(make(Migration), db_alias, AUTHOR)
        assert recorder.get_record("testapp:0001_test", db_alias).status == "enqueued"
    record = recorder.get_record("testapp:0001_test", db_alias)
    assert (record.status, record.reason) == ("failed", "backend_unreachable")
    with transaction.atomic(using=db_alias):
        executor.retry(make(CountVisits), db_alias, AUTHOR, enqueue=False)
        transaction.set_rollback(True, using=db_alias)
    assert recorder.get_record("testapp:0001_test", db_alias).status == "failed"


SIGNALS = {action.signal for action in states.ACTIONS.values() if action.signal}


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


def test_the_finish_shard_is_made_once_however_many_see_that_it_is_due(db_alias):
    make_cities(db_alias, 10)
    migration = make(CountVisits)
    attempt_uuid = start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    assert make_finish_if_due(migration, db_alias, attempt_uuid) is None
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).advance(shard, status="done"))
    in_threads(*[lambda: make_finish_if_due(migration, db_alias, attempt_uuid)] * 4)
    assert MigrationShard.objects.using(db_alias).filter(kind="finish").count() == 1


def test_a_planning_that_is_done_twice_makes_nothing_twice(db_alias):
    class Migration(CountVisits):
        shard_count = 3

    make_cities(db_alias)
    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    (plan,) = recorder.get_shards(attempt_uuid, db_alias)
    late = recorder.get_shard(plan.pk, db_alias)
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(late, "late", 0.01, None))
    second = recorder.get_shard(plan.pk, db_alias)
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(second, "second", 30, None))
    assert Slice(second, migration, db_alias).run() == "done"
    assert Slice(late, migration, db_alias).run() == LOST
    assert MigrationShard.objects.using(db_alias).filter(kind="range").count() == 3
    assert work(migration, db_alias).processed == 100


def test_a_retried_row_that_rests_keeps_the_run_from_finishing(db_alias):
    class Migration(CountVisits):
        on_error = "skip"
        is_broken = True
        rests = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 3":
                if self.is_broken:
                    raise ValueError("broken")
                if self.rests < 2:
                    type(self).rests += 1
                    raise RetryLater(0.3, "an API")

    make_cities(db_alias, 10)
    migration = make(Migration)
    assert run(migration, db_alias).reason == "failures_open"
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed, Migration.rests) == ("applied", 10, 2)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_a_retry_after_not_empty_goes_over_the_table_again(db_alias):
    class Migration(MapperMigration):
        update_fields = ["visits"]
        until_empty = True
        goal = 1000

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits__lt=self.goal)

        def operation(self, city, db_alias):
            city.visits += 1

    make_cities(db_alias, 3)
    migration = make(Migration)
    assert run(migration, db_alias).reason == "not_empty"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).reason == "not_empty"
    Migration.goal = 12
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {12}


def test_a_retry_launches_a_hand_written_migration_again(db_alias):
    class Migration(BaseMigration):
        launches = 0

        def launch(self, db_alias):
            type(self).launches += 1
            if self.launches == 1:
                self.mark_as_errored(db_alias, ValueError("down"))
            elif self.launches == 2:
                raise RuntimeError("still down")
            else:
                self.mark_as_finished(db_alias)

    migration = make(Migration)
    assert run(migration, db_alias).error == "ValueError: down"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).error == "RuntimeError: still down"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert Migration.launches == 3
