"""Clocks that are set back, that differ, or that say an hour twice: no dead worker's lease lives on, nothing waits."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from datetime import timezone as datetime_timezone

import pytest
from django.utils import timezone

from massmigration import MapperMigration, executor, recorder, states, watch
from massmigration.databases.registry import get_database
from massmigration.engine.leases import claim, is_claimable, is_live, release
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR, claim_range, get_progress, make, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

HOUR = 3600
UTC = datetime_timezone.utc


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 5

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


@pytest.fixture
def migration(db_alias):
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(20))
    migration = make(CountVisits)
    start(migration, db_alias)
    return migration


def set_clocks_back(db_alias, seconds):
    """Move all that is stored as far ahead as if every clock, the database's too, had been set back."""
    ahead = timedelta(seconds=seconds)
    for table in (MigrationRecord, MigrationAttempt, MigrationShard):
        for row in table.objects.using(db_alias).all():
            for field in table._meta.fields:
                value = getattr(row, field.name)
                if isinstance(value, datetime):
                    setattr(row, field.name, value + ahead)
            if getattr(row, "lease_until", None) is not None:
                row.lease_until += round(seconds * 1000)
            row.save(using=db_alias)


def get_stored(shard, db_alias):
    return recorder.get_shard(shard.pk, db_alias)


def test_a_lease_is_stored_without_a_doubt_about_the_hour(migration, db_alias, settings):
    shard = claim_range(migration, db_alias)
    assert abs(shard.lease_until / 1000 - time.time() - 30) < 10
    assert abs((shard.lease_expires_at - timezone.now()).total_seconds() - 30) < 10, "for workers of the version before"
    release(shard, db_alias)
    assert get_stored(shard, db_alias).lease_until is None


def test_a_clock_that_was_set_back_an_hour_does_not_revive_the_lease_of_a_dead_worker(migration, db_alias):
    shard = claim_range(migration, db_alias, "dead")
    set_clocks_back(db_alias, HOUR)
    stored = get_stored(shard, db_alias)
    assert not is_live(stored)
    assert is_claimable(stored)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.stalled, progress.workers_alive) == (True, 0)
    assert work(migration, db_alias).status == states.APPLIED
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_recover_takes_a_shard_whose_lease_lies_too_far_ahead(migration, db_alias):
    shard = claim_range(migration, db_alias, "dead")
    set_clocks_back(db_alias, HOUR)
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    assert get_stored(shard, db_alias).status == MigrationShard.READY


def test_a_place_is_free_again_whose_lease_lies_too_far_ahead(migration, db_alias):
    migration.max_workers = 1
    dead = claim_range(migration, db_alias, "dead")
    other = MigrationShard(id="other", attempt_uuid=dead.attempt_uuid, key=dead.key, kind="range", number=1)
    recorder.ShardMaker(db_alias).add_shards([other])
    assert not claim(get_stored(other, db_alias), migration, db_alias, "alive")
    set_clocks_back(db_alias, HOUR)
    assert claim(get_stored(other, db_alias), migration, db_alias, "alive")


@pytest.mark.parametrize("seconds", [2, 200])
def test_a_clock_that_was_set_back_a_little_leaves_leases_alone(migration, db_alias, seconds):
    shard = claim_range(migration, db_alias)
    set_clocks_back(db_alias, seconds)
    assert is_live(get_stored(shard, db_alias))


@pytest.mark.needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
def test_machines_whose_clocks_differ_agree_by_the_databases_clock(migration, db_alias, monkeypatch):
    shard = claim_range(migration, db_alias)
    right = time.time
    with monkeypatch.context() as patch:  # this machine's clock is an hour behind, or ahead: the lease is the same
        for error in (-HOUR, HOUR):
            patch.setattr(time, "time", lambda error=error: right() + error)
            patch.setattr(timezone, "now", lambda error=error: datetime.fromtimestamp(right() + error, tz=UTC))
            get_database(db_alias).read_clock()
            stored = get_stored(shard, db_alias)
            assert is_live(stored)
            assert not is_claimable(stored)
            assert recorder.ShardRecorder(db_alias).renew_lease(shard.pk, shard.fence, 30)
            assert abs(get_stored(shard, db_alias).lease_until / 1000 - right() - 30) < 10
    recorder.ShardRecorder(db_alias).renew_lease(shard.pk, shard.fence, -1)
    assert is_claimable(get_stored(shard, db_alias))


def test_the_hour_that_comes_twice_in_october(migration, db_alias, settings, monkeypatch):
    settings.USE_TZ, settings.TIME_ZONE = False, "Europe/Berlin"
    shard = claim_range(migration, db_alias, "dead")
    assert timezone.is_naive(get_stored(shard, db_alias).lease_expires_at)
    assert is_live(get_stored(shard, db_alias))
    ended_at = datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC).timestamp()  # 02:59:59, before the clocks are set back
    moment = datetime(2026, 10, 25, 2, 59, 59)
    rows = MigrationShard.objects.using(db_alias).filter(pk=shard.pk)
    rows.update(lease_until=round(ended_at * 1000), lease_expires_at=moment)
    stored = get_stored(shard, db_alias)
    monkeypatch.setattr(time, "time", lambda: ended_at + 1)
    monkeypatch.setattr(timezone, "now", lambda: datetime(2026, 10, 25, 2, 0, 0))
    monkeypatch.setattr(
        get_database(db_alias), "_reading", (ended_at + 1 - time.monotonic(), time.monotonic()), raising=False
    )
    assert stored.lease_expires_at > timezone.now(), "on the wall it lies ahead"
    assert not is_live(stored)
    assert is_claimable(stored)


def test_the_lease_of_a_worker_of_the_version_before_is_believed(migration, db_alias):
    shard = claim_range(migration, db_alias)
    rows = MigrationShard.objects.using(db_alias).filter(pk=shard.pk)
    rows.update(lease_until=shard.lease_until - 60_000)
    stored = get_stored(shard, db_alias)
    assert is_live(stored), "it renewed the lease, and knows nothing of lease_until"
    rows.update(lease_expires_at=timezone.now() - timedelta(seconds=1), lease_until=shard.lease_until)
    assert not is_live(get_stored(shard, db_alias))
    rows.update(lease_expires_at=timezone.now() + timedelta(seconds=HOUR), lease_until=None)
    assert not is_live(get_stored(shard, db_alias)), "its clock was set back"


def test_a_rest_does_not_become_an_hour_longer(migration, db_alias):
    shard = claim_range(migration, db_alias)
    release(shard, db_alias, rest_seconds=60, waiting_for="a service")
    assert not is_claimable(get_stored(shard, db_alias))
    assert get_progress(migration.key, db_alias, migration).waiting_for == "a service"
    set_clocks_back(db_alias, HOUR)
    assert is_claimable(get_stored(shard, db_alias))
    assert work(migration, db_alias).status == states.APPLIED


def test_a_long_rest_is_kept(migration, db_alias):
    shard = claim_range(migration, db_alias)
    release(shard, db_alias, rest_seconds=10 * HOUR, waiting_for="the night")
    assert not is_claimable(get_stored(shard, db_alias))


def test_a_watch_that_was_noted_before_the_clock_was_set_back_is_none(migration, db_alias, settings):
    settings.MASSMIGRATION_WATCH_SECONDS = 60
    (attempt,) = MigrationAttempt.objects.using(db_alias).all()
    due_at = attempt.watch_due_at = timezone.now() + timedelta(seconds=60)
    assert not watch.is_unwatched(attempt)
    due_at = attempt.watch_due_at = due_at + timedelta(seconds=HOUR)
    assert watch.is_unwatched(attempt)
    assert not watch.is_superseded(attempt, due_at), "the watch that comes does its work"
    assert not watch.is_superseded(attempt, None)
