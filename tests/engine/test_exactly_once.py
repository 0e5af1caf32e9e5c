"""G1, G3, G5: batches are committed once, whoever dies, comes late, or is told to stop meanwhile."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import IntegrityError, connections, transaction

from massmigration import MapperMigration, executor, recorder
from massmigration.databases.transactions import write_transaction
from massmigration.engine.slice import LOST, STOPPED, Slice
from massmigration.exceptions import FenceLost, IllegalMove
from massmigration.models import MigrationShard
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def make_cities(db_alias: str, count: int) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias: str) -> list[int]:
    return sorted(set(City.objects.using(db_alias).values_list("visits", flat=True)))


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 50

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


class Slow(CountVisits):
    """Its first batch waits in the middle until the test lets it go on."""

    entered: threading.Event
    go_on: threading.Event
    seen = 0

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        self.seen += 1
        if self.seen == 10:
            self.entered.set()
            assert self.go_on.wait(30)


def make_slow() -> Slow:
    """Return a definition whose events are those of one test, and of all its instances."""
    return make(type("Migration", (Slow,), {"entered": threading.Event(), "go_on": threading.Event()}))


def test_a_pause_while_a_long_batch_runs_returns_at_once(db_alias):
    make_cities(db_alias, 200)
    migration = make_slow()
    start(migration, db_alias)

    def pause():
        assert migration.entered.wait(30)
        began_at = time.monotonic()
        executor.pause(migration.key, db_alias, AUTHOR)
        seconds = time.monotonic() - began_at
        migration.go_on.set()
        return seconds

    _, seconds = in_threads(lambda: work(migration, db_alias), pause)
    assert seconds < 2
    progress = get_progress(migration.key, db_alias, migration)
    assert progress.status == "paused"
    assert progress.processed <= 50
    assert get_visits(db_alias) == [0, 1]
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [1]


def test_a_pause_takes_effect_between_two_objects_of_a_slow_batch(db_alias, settings):
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 0
    make_cities(db_alias, 50)
    migration = make_slow()
    start(migration, db_alias)

    def pause():
        assert migration.entered.wait(30)
        executor.pause(migration.key, db_alias, AUTHOR)
        migration.go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.processed) == ("paused", 10)
    assert City.objects.using(db_alias).filter(visits=1).count() == 10


def test_a_stale_workers_commit_hits_no_row(db_alias):
    make_cities(db_alias, 200)
    migration = make_slow()
    attempt_uuid = start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    outcome = []

    def hang():
        outcome.append(Slice(shard, migration, db_alias).run())

    def take_over():
        assert migration.entered.wait(30)
        assert recorder.free_shards(attempt_uuid, db_alias) == 1
        if connections[db_alias].vendor == "sqlite":  # no row is locked: the other worker need not wait
            assert work(make(CountVisits), db_alias).status == "applied"
        migration.go_on.set()

    in_threads(hang, take_over)
    assert outcome == [LOST]
    assert work(make(CountVisits), db_alias).status == "applied"
    assert get_visits(db_alias) == [1]


def test_two_workers_on_one_shard_the_second_claim_is_refused(db_alias):
    make_cities(db_alias, 10)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    copies = [recorder.get_shard(shard.pk, db_alias) for _ in range(2)]
    recorder.free_shards(shard.attempt_uuid, db_alias)
    copies = [recorder.get_shard(shard.pk, db_alias) for _ in range(2)]

    def claim(number):
        def attempt():
            with write_transaction(db_alias):
                return recorder.ShardRecorder(db_alias).claim(copies[number], f"worker {number}", 30, None)

        return attempt

    assert sorted(in_threads(claim(0), claim(1))) == [False, True]


def test_an_exception_after_the_commit_repeats_nothing(db_alias, caplog):
    class Migration(CountVisits):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)

        def prepare(self, objects, db_alias):
            if connections[db_alias].in_atomic_block:
                transaction.on_commit(self.explode, using=db_alias)

        @staticmethod
        def explode():
            raise RuntimeError("after the commit")

    class SavesItself(Migration):
        update_fields = ()

        def operation(self, city, db_alias):
            city.visits += 1
            city.save(update_fields=["visits"])

    make_cities(db_alias, 120)
    progress = run(SavesItself, db_alias)
    assert (progress.status, progress.processed) == ("applied", 120)
    assert get_visits(db_alias) == [1]
    assert "something that ran after its commit failed" in caplog.text


def test_a_swallowed_integrity_error_loses_no_other_row(db_alias):
    class Migration(MapperMigration):
        batch_size = 50

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1
            city.save(update_fields=["visits"])
            if city.name == "City 70":
                try:
                    City.objects.using(db_alias).create(pk=city.pk)
                except IntegrityError:
                    pass

    make_cities(db_alias, 100)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("failed", 1, 70)
    assert "transaction.atomic" in progress.error
    assert City.objects.using(db_alias).filter(visits=1).count() == 70
    assert City.objects.using(db_alias).get(name="City 70").visits == 0


def test_a_savepoint_around_what_may_fail_is_all_right(db_alias):
    class Migration(MapperMigration):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1
            city.save(update_fields=["visits"])
            try:
                with transaction.atomic(using=db_alias):
                    City.objects.using(db_alias).create(pk=city.pk)
            except IntegrityError:
                pass

    make_cities(db_alias, 60)
    assert run(Migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [1]


def test_on_commit_inside_an_operation_runs_after_the_batch(db_alias):
    seen = []

    class Migration(MapperMigration):
        batch_size = 20

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1
            city.save(update_fields=["visits"])
            transaction.on_commit(lambda: seen.append(connections[db_alias].in_atomic_block), using=db_alias)

    make_cities(db_alias, 60)
    assert run(Migration, db_alias).status == "applied"
    assert seen == [False] * 60


def test_a_start_after_a_cancel_while_an_old_batch_is_open_does_no_row_twice(db_alias):
    make_cities(db_alias, 200)
    old = make_slow()
    start(old, db_alias)
    shard = claim_range(old, db_alias)
    outcome = []

    def hang():
        outcome.append(Slice(shard, old, db_alias).run())

    def cancel_and_start():
        assert old.entered.wait(30)
        executor.cancel(old.key, db_alias, AUTHOR)
        start(make(CountVisits), db_alias)
        if connections[db_alias].vendor == "sqlite":
            work(make(CountVisits), db_alias)
        old.go_on.set()
        return work(make(CountVisits), db_alias)

    _, progress = in_threads(hang, cancel_and_start)
    assert outcome in ([LOST], [STOPPED])
    assert (progress.status, progress.processed) == ("applied", 200)
    assert get_visits(db_alias) == [1]


@pytest.mark.needs_postgres
def test_two_workers_that_finish_the_last_two_ranges_at_once_still_finish_the_run():
    class Migration(CountVisits):
        shard_count = 2

    make_cities("postgres", 100)
    for _ in range(8):
        City.objects.using("postgres").update(visits=0)
        migration = make(Migration)
        start(migration, "postgres")
        shards = [claim_range(migration, "postgres", f"worker {number}") for number in range(2)]
        together = threading.Barrier(2)

        def finish(shard, together=together, migration=migration):
            def call():
                together.wait()
                Slice(shard, migration, "postgres").run()
                return work(migration, "postgres")

            return call

        results = in_threads(*(finish(shard) for shard in shards))
        assert {progress.status for progress in results} == {"applied"}
        assert get_visits("postgres") == [1]
        executor.reset(migration.key, "postgres", AUTHOR)


def test_advance_is_refused_when_fence_cursor_or_bound_are_not_as_read(db_alias):
    make_cities(db_alias, 10)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    for field, value in (("fence", shard.fence - 1), ("cursor", "7"), ("upper", "9")):
        other = recorder.get_shard(shard.pk, db_alias)
        setattr(other, field, value)
        with pytest.raises(FenceLost):
            recorder.ShardRecorder(db_alias).advance(other, processed=99)
    assert MigrationShard.objects.using(db_alias).get(pk=shard.pk).processed == 0


def test_two_starts_at_once_one_wins(db_alias):
    migration = make(CountVisits)

    def attempt():
        try:
            return executor.start(migration, db_alias, AUTHOR, enqueue=False).status
        except IllegalMove as refusal:
            return str(refusal)

    results = in_threads(attempt, attempt)
    assert results.count("enqueued") == 1
    assert sum("already" in result for result in results) == 1


def test_numbers_add_up_after_a_restart(db_alias):
    make_cities(db_alias, 30)
    migration = make(CountVisits)
    assert run(migration, db_alias).processed == 30
    executor.restart(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 30, 30)
    assert get_visits(db_alias) == [2]
