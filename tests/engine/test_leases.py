"""Rule 10: who works keeps the shard, who hangs or dies loses it, and the page says since when."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from massmigration import MapperMigration, SimpleMigration, executor, recorder
from massmigration.engine import leases
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord, MigrationShard
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


def age(db_alias: str, seconds: float) -> None:
    """Move the leases, and all signs of life, into the past."""
    past = timezone.now() - timedelta(seconds=seconds)
    held = MigrationShard.objects.using(db_alias).filter(status="running")
    held.update(lease_expires_at=past, last_progress_at=past)
    MigrationShard.objects.using(db_alias).exclude(finished_at=None).update(finished_at=past)
    MigrationRecord.objects.using(db_alias).update(moved_at=past)


def test_a_heartbeat_keeps_the_lease_while_one_object_takes_longer(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.6

    class Migration(CountVisits):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 30":
                time.sleep(1.5)

    make_cities(db_alias)
    migration = make(Migration)
    start(migration, db_alias)
    workers = [lambda: work(migration, db_alias), lambda: work(migration, db_alias)]
    progress = in_threads(*workers)[0]
    assert progress.status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
    ranges = MigrationShard.objects.using(db_alias).filter(kind="range")
    assert {shard.fence for shard in ranges} == {1}


def test_a_dead_worker_is_shown_as_stalled_since_and_taken_over_after_its_lease(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    start(migration, db_alias)
    claim_range(migration, db_alias, "dead")
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.stalled, progress.workers_alive) == ("running", False, 1)
    age(db_alias, 45)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.stalled, progress.workers_alive) == (True, 0)
    assert 40 < (timezone.now() - progress.stalled_since).total_seconds() < 60
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_recover_takes_shards_of_the_dead_and_leaves_those_of_the_living(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias, "alive")
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    stored = recorder.get_shard(shard.pk, db_alias)
    assert (stored.status, stored.fence, stored.worker) == ("running", shard.fence, "alive")
    age(db_alias, 45)
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    stored = recorder.get_shard(shard.pk, db_alias)
    assert (stored.status, stored.fence, stored.worker) == ("ready", shard.fence + 1, "")
    assert work(migration, db_alias).status == "applied"


def test_recover_of_what_does_not_run_is_refused(db_alias):
    with pytest.raises(IllegalMove, match="Only a migration that is enqueued or running can be recovered"):
        executor.recover(make(CountVisits), db_alias, AUTHOR)


def test_a_worker_that_is_told_to_stop_hands_its_shard_back(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    start(migration, db_alias)
    stop = threading.Event()
    work(migration, db_alias, should_stop=stop.is_set, on_progress=stop.set)
    stop.clear()
    seen = []

    def stop_at_the_second_batch():
        seen.append(1)
        if len(seen) == 2:
            stop.set()

    progress = work(migration, db_alias, should_stop=stop.is_set, on_progress=stop_at_the_second_batch)
    assert (progress.status, progress.workers_alive, progress.stalled) == ("running", 0, False)
    assert 0 < progress.processed < 100
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_short_slices_end_a_long_shard(db_alias, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    make_cities(db_alias)
    progress = run(CountVisits, db_alias)
    assert (progress.status, progress.processed) == ("applied", 100)
    assert MigrationShard.objects.using(db_alias).get(kind="range").fence >= 5


@pytest.mark.needs_postgres
@pytest.mark.parametrize(("attributes", "most"), [({"max_workers": 2}, 2), ({"serial": True}, 1), ({}, 4)])
def test_live_leases_are_bounded(attributes, most):
    class Migration(CountVisits):
        shard_count = 4
        batch_size = 5

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            time.sleep(0.005)

    make_cities("postgres", 80)
    migration = make(type("Migration", (Migration,), attributes))
    start(migration, "postgres")
    live = []

    def look():
        live.append(get_progress(migration.key, "postgres", migration).workers_alive)

    results = in_threads(*[lambda: work(migration, "postgres", on_progress=look)] * 4)
    assert {progress.status for progress in results} == {"applied"}
    assert 1 <= max(live) <= most
    assert set(City.objects.using("postgres").values_list("visits", flat=True)) == {1}


def test_sqlite_is_worked_by_one_writer():
    assert leases.get_max_workers(make(CountVisits), "default") == 1


def test_worker_names_differ():
    assert leases.make_worker_name() != leases.make_worker_name()


def test_a_long_simple_migration_is_not_stalled(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.5
    seen = []

    class Migration(SimpleMigration):
        def operation(self, db_alias):
            for _ in range(6):
                time.sleep(0.2)
                in_threads(lambda: seen.append(get_progress(self.key, db_alias, self).stalled))

    assert run(Migration, db_alias).status == "applied"
    if db_alias != "default":  # on SQLite the heartbeat waits for the operation's transaction
        assert seen == [False] * 6
