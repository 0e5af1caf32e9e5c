"""Corners where a row could be lost or done twice, or a run could fail or stand still without a reason."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from massmigration import BaseMigration, CustomMigration, MapperMigration, RetryLater, executor, recorder
from massmigration.databases.registry import get_database
from massmigration.databases.transactions import run_write
from massmigration.engine import leases
from massmigration.engine.kinds import get_kind
from massmigration.engine.slice import DONE, Slice
from massmigration.exceptions import DatabaseLocked
from massmigration.models import MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR, claim_range, get_progress, make, run, start, work
from tests.testapp.models import Child, City, CompositeRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 20

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias: str, count: int = 60) -> list[int]:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))
    return sorted(City.objects.using(db_alias).values_list("pk", flat=True))


def get_visits(db_alias: str) -> set[int]:
    return set(City.objects.using(db_alias).values_list("visits", flat=True))


def split(shard: MigrationShard, db_alias: str, key: int) -> None:
    stored = recorder.get_shard(shard.pk, db_alias)
    assert run_write(db_alias, lambda: recorder.ShardMaker(db_alias).split_shard(stored, str(key), 77)) is not None


def test_two_custom_shards_may_use_the_same_cursors(db_alias):
    class Migration(CustomMigration):
        on_error = "skip"
        is_broken = True

        def get_shards(self, db_alias):
            return ["a", "b"]

        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else cursor + 1, 3):
                yield number, f"{shard}{number}"

        def operation(self, item, db_alias):
            if item.endswith("1") and self.is_broken:
                raise ValueError(item)
            City.objects.using(db_alias).create(name=item)

    migration = make(Migration)
    assert run(migration, db_alias).failed == 2
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    names = sorted(City.objects.using(db_alias).values_list("name", flat=True))
    assert names == ["a0", "a1", "a2", "b0", "b1", "b2"]


@pytest.mark.parametrize(
    ("before", "after"),
    [({"on_error": "skip", "max_failures": 2}, {}), ({}, {"on_error": "skip"})],
)
def test_a_retry_knows_what_the_cursor_passed_although_on_error_was_changed(db_alias, before, after):
    class Fails(CountVisits):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name in ("City 5", "City 6", "City 7"):
                raise ValueError("broken")

    make_cities(db_alias)
    assert run(make(type("Migration", (Fails,), before)), db_alias).status == "failed"
    mended = make(type("Migration", (CountVisits,), after))
    executor.retry(mended, db_alias, AUTHOR, enqueue=False)
    progress = work(mended, db_alias)
    assert (progress.status, progress.processed) == ("applied", 60)
    assert get_visits(db_alias) == {1}


def test_a_range_whose_batches_cannot_be_refused_is_never_cut(db_alias):
    make_cities(db_alias, 3000)
    for attributes, is_cut in (({}, True), ({"atomic": False}, False), ({"other_database": db_alias}, False)):
        migration = make(type("Migration", (CountVisits,), {"shard_count": 1, **attributes}))
        attempt_uuid = start(migration, db_alias)
        claim_range(migration, db_alias)
        new = get_kind(migration).split_largest(recorder.get_shards(attempt_uuid, db_alias), db_alias)
        assert (new is not None) is is_cut
        executor.cancel(migration.key, db_alias, AUTHOR)


def test_a_shard_that_was_cut_is_handed_back_and_ended_all_the_same(db_alias, monkeypatch):
    keys = make_cities(db_alias)
    migration = make(type("Migration", (CountVisits,), {"shard_count": 1}))
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    split(shard, db_alias, keys[29])
    leases.release(shard, db_alias)
    assert recorder.get_shard(shard.pk, db_alias).status == "ready"
    shard = claim_range(migration, db_alias)
    finish = recorder.ShardRecorder.finish_shard

    def cut_and_finish(self, held):
        MigrationShard.objects.using(db_alias).filter(pk=shard.pk).update(upper="0")
        finish(self, held)

    monkeypatch.setattr(recorder.ShardRecorder, "finish_shard", cut_and_finish)
    assert Slice(shard, migration, db_alias).run() == DONE
    monkeypatch.undo()
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == {1}


@pytest.mark.needs_postgres
def test_an_open_transaction_of_the_site_is_waited_for_before_the_rows_are_compared(monkeypatch):
    from massmigration.engine.snapshots import Snapshot

    class Migration(MapperMigration):
        update_fields = ["slug"]
        lock_rows = False

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.slug = city.name.lower()

    make_cities("postgres", 5)
    began, threads = threading.Event(), []

    def edit():
        with transaction.atomic(using="postgres"):
            City.objects.using("postgres").filter(name="City 3").update(name="Edited")
            began.set()
            time.sleep(0.5)
        connections["postgres"].close()

    find_stale = Snapshot.find_stale

    def edit_first(self, objects, alias):
        if not threads:
            threads.append(threading.Thread(target=edit))
            threads[0].start()
            assert began.wait(10)
        return find_stale(self, objects, alias)

    monkeypatch.setattr(Snapshot, "find_stale", edit_first)
    assert run(Migration, "postgres").status == "applied"
    threads[0].join()
    assert City.objects.using("postgres").get(name="Edited").slug == "edited"


def test_rows_that_an_exact_count_finds_are_visited_although_the_last_pass_found_none(db_alias):
    class Migration(CountVisits):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits=0)

    make_cities(db_alias, 20)
    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    late: list[City] = []

    def look():
        """Make a row before the second pass, heal it before that looks, and make another behind its cursor."""
        ranges = [shard for shard in recorder.get_shards(attempt_uuid, db_alias) if shard.kind == "range"]
        done = {shard.pass_number for shard in ranges if shard.status == "done"}
        if 1 in done and not late:
            late.append(City.objects.using(db_alias).create(name="late"))
        elif 2 in done and len(late) == 1:
            late.append(City.objects.using(db_alias).create(name="later"))
        elif any(shard.pass_number == 2 for shard in ranges) and len(late) == 1:
            City.objects.using(db_alias).filter(pk=late[0].pk).update(visits=1)

    progress = work(migration, db_alias, on_progress=look)
    assert (progress.status, len(late)) == ("applied", 2)
    assert not City.objects.using(db_alias).filter(visits=0).exists()


def test_a_limit_below_the_size_of_a_batch_still_gets_on(db_alias):
    for fields in (["visits"], []):

        class Migration(CountVisits):
            update_fields = fields
            batch_size = 10
            budget = 5
            rests = 0

            def operation(self, city, db_alias):
                if self.budget == 0:
                    type(self).budget, type(self).rests = 5, self.rests + 1
                    raise RetryLater(0.01, "a limit of five")
                type(self).budget -= 1
                city.visits += 1
                if not self.update_fields:
                    city.save()

        City.objects.using(db_alias).all().delete()
        make_cities(db_alias, 20)
        migration = make(Migration)
        progress = run(migration, db_alias, should_stop=lambda kind=Migration: kind.rests > 30)
        assert (progress.status, progress.failed) == ("applied", 0)
        assert get_visits(db_alias) == {1}
        executor.reset(migration.key, db_alias, AUTHOR)


def test_a_rest_that_is_over_is_no_excuse_for_a_stall(db_alias):
    make_cities(db_alias, 20)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    leases.release(shard, db_alias, rest_seconds=60, waiting_for="a limit")
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.stalled, progress.waiting_for) == (False, "a limit")
    past = timezone.now() - timedelta(hours=5)
    MigrationShard.objects.using(db_alias).update(not_before=past, last_progress_at=past, finished_at=past)
    MigrationRecord.objects.using(db_alias).update(moved_at=past)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.stalled, progress.waiting_for) == (True, None)
    assert "recover" in progress.allowed_actions


@pytest.mark.parametrize("trouble", [OperationalError("database is locked"), RetryLater(0.1, "a replica")])
def test_trouble_that_passes_does_not_fail_verify(db_alias, trouble):
    class Migration(CountVisits):
        asked = 0

        def verify(self, db_alias):
            type(self).asked += 1
            if self.asked == 1:
                raise trouble

    make_cities(db_alias, 5)
    assert run(Migration, db_alias).status == "applied"
    assert Migration.asked == 2


def test_launch_is_not_called_on_a_paused_record(db_alias):
    called = []

    class Migration(BaseMigration):
        def launch(self, db_alias):
            called.append(db_alias)

    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    (plan,) = recorder.get_shards(attempt_uuid, db_alias)
    assert leases.claim(plan, migration, db_alias, "a")
    executor.pause(migration.key, db_alias, AUTHOR)
    Slice(plan, migration, db_alias).run()
    assert called == []
    assert recorder.get_shard(plan.pk, db_alias).status == "ready"


def test_an_old_launch_does_not_end_a_new_attempt(db_alias):
    class Migration(BaseMigration):
        def launch(self, db_alias):
            executor.cancel(self.key, db_alias, AUTHOR)
            start(self, db_alias)
            self.mark_as_finished(db_alias)

    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    (plan,) = recorder.get_shards(attempt_uuid, db_alias)
    assert leases.claim(plan, migration, db_alias, "a")
    Slice(plan, migration, db_alias).run()
    assert recorder.get_record(migration.key, db_alias).status == "enqueued"


@pytest.mark.parametrize("trouble", [OperationalError("database is locked"), DatabaseLocked("locked for long")])
def test_a_worker_that_lost_its_database_goes_on_with_its_own_shard_at_once(db_alias, monkeypatch, trouble):
    make_cities(db_alias, 60)
    migration = make(type("Migration", (CountVisits,), {"shard_count": 1}))
    start(migration, db_alias)
    stops, asked = Slice._stops_between_batches, []

    def fail_once(self):
        asked.append(1)
        if len(asked) == 3:
            raise trouble
        return stops(self)

    monkeypatch.setattr(Slice, "_stops_between_batches", fail_once)
    began_at = time.monotonic()
    assert work(migration, db_alias).status == "applied"
    assert time.monotonic() - began_at < 15  # the lease of 30 seconds is not waited for
    assert get_visits(db_alias) == {1}


def test_only_sqlites_lock_is_taken_for_a_lock():
    is_contention = get_database("default").is_contention
    assert is_contention(OperationalError("database is locked"))
    assert is_contention(OperationalError("database table is locked: testapp_city"))
    assert not is_contention(OperationalError("deadlock detected: process 7 is blocked by process 8"))


@pytest.mark.parametrize("model", [CompositeRow, Child])
def test_rows_that_are_compared_may_have_composite_keys_and_parents(db_alias, model):
    class Migration(CountVisits):
        lock_rows = False

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

    for number in range(5):
        key = {"tenant": "a", "number": number} if model is CompositeRow else {}
        model.objects.using(db_alias).create(**key)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 5)
    assert set(model.objects.using(db_alias).values_list("visits", flat=True)) == {1}
