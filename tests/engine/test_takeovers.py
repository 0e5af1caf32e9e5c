"""Workers that are lost in a row: what is counted and what is not, how the object is found, and when the count ends."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.db import OperationalError, connections
from django.utils import timezone

from massmigration import BatchMigration, CustomMigration, MapperMigration, executor, recorder, states
from massmigration.databases.transactions import run_write
from massmigration.engine import leases, takeovers
from massmigration.engine.slice import Slice
from massmigration.exceptions import FenceLost
from massmigration.executor.accept import accept
from massmigration.models import MigrationFailure, MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR, claim_range, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

PAST = timezone.now() - timedelta(days=1)
NO_EXCEPTIONS = (SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)
ON_DATABASES = [
    *(("default", error) for error in NO_EXCEPTIONS),
    pytest.param("postgres", SystemExit, marks=needs_postgres),  # what was open is rolled back for all of them
]


class Count(MapperMigration):
    update_fields = ["visits"]
    batch_size = 10
    shard_count = 1

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias, count=30):
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias):
    return list(City.objects.using(db_alias).order_by("pk").values_list("visits", flat=True))


def lose(db_alias):
    """Let the leases of all workers run out."""
    MigrationShard.objects.using(db_alias).filter(status="running").update(lease_expires_at=PAST)


def get_range(db_alias):
    return MigrationShard.objects.using(db_alias).get(kind="range")


def lose_workers(migration, db_alias, count):
    """Have so many workers take the range and be lost; the next one takes it over."""
    for number in range(count):
        claim_range(migration, db_alias, f"dead {number}")
        lose(db_alias)


def test_each_lost_worker_is_counted_by_the_one_who_takes_over(db_alias):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    counts = []
    for number in range(4):
        counts.append(claim_range(migration, db_alias, f"dead {number}").takeovers)
        lose(db_alias)
    assert counts == [None, 1, 2, 3]
    assert get_range(db_alias).takeovers == 3


def test_progress_resets_the_count(db_alias):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 2)
    seen = []
    work(migration, db_alias, on_progress=lambda: seen.append(get_range(db_alias).takeovers))
    assert seen[0] == 0
    assert get_visits(db_alias) == [1] * 30


def test_a_worker_that_stood_still_and_moved_on_meanwhile_is_not_taken_over(db_alias):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias, "frozen")
    lose(db_alias)
    seen = recorder.get_shard(shard.pk, db_alias)
    recorder.ShardRecorder(db_alias).advance(shard, cursor="7")  # it is thawed, and commits first
    assert not leases.claim(seen, migration, db_alias, "successor")
    assert get_range(db_alias).takeovers is None


def test_the_successor_of_a_frozen_worker_resets_the_count(db_alias):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    frozen = claim_range(migration, db_alias, "frozen")
    lose(db_alias)
    assert work(migration, db_alias).status == "applied"
    assert get_range(db_alias).takeovers == 0
    with pytest.raises(FenceLost):
        recorder.ShardRecorder(db_alias).advance(frozen, cursor="7")


@pytest.mark.parametrize("way", ["release", "pause", "stop"])
def test_a_clean_hand_over_is_no_loss_and_forgets_none(db_alias, way):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 2)
    for _ in range(3):
        shard = claim_range(migration, db_alias)
        if way == "release":
            leases.release(shard, db_alias)
        elif way == "stop":
            Slice(shard, migration, db_alias, should_stop=lambda: True).run()
        else:
            executor.pause(migration.key, db_alias, AUTHOR)
            Slice(shard, migration, db_alias).run()
            executor.resume(migration, db_alias, AUTHOR, enqueue=False)
        assert get_range(db_alias).takeovers == 2


def test_a_worker_that_died_before_a_pause_is_counted_by_the_resume_and_a_live_one_is_not(db_alias):
    make_cities(db_alias)
    migration = make(Count)
    start(migration, db_alias)
    claim_range(migration, db_alias, "alive")
    executor.pause(migration.key, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert get_range(db_alias).takeovers is None
    claim_range(migration, db_alias, "dead")
    lose(db_alias)
    executor.pause(migration.key, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert get_range(db_alias).takeovers == 1


class Sizes(BatchMigration):
    """Notes how many rows each call had."""

    batch_size = 10
    shard_count = 1
    sizes: list[int] = []

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, cities, db_alias):
        self.sizes.append(len(cities))
        cities.update(visits=1)


def test_from_the_third_on_objects_come_one_by_one_until_the_place_is_passed(db_alias):
    make_cities(db_alias, 60)
    migration = make(type("Migration", (Sizes,), {"sizes": []}))
    start(migration, db_alias)
    lose_workers(migration, db_alias, 3)
    assert work(migration, db_alias).status == "applied"
    sizes = migration.sizes
    assert sizes[:21] == [1] * 21  # twice a batch and one more, because batches grow
    assert max(sizes[21:]) > 1
    assert sum(sizes) == 60


def test_the_count_stays_at_three_while_the_place_may_lie_ahead(db_alias):
    make_cities(db_alias, 60)
    migration = make(type("Migration", (Sizes,), {"sizes": []}))
    start(migration, db_alias)
    lose_workers(migration, db_alias, 4)
    counts = []
    work(migration, db_alias, on_progress=lambda: counts.append(get_range(db_alias).takeovers))
    assert (counts[0], counts[19], counts[20]) == (3, 3, 0)


def test_an_object_that_is_gone_blames_nobody(db_alias):
    make_cities(db_alias, 3)
    migration = make(Count)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 6)
    City.objects.using(db_alias).all().delete()
    assert work(migration, db_alias).status == "applied"


def test_a_worker_that_is_lost_while_it_looks_for_the_object_ends_the_run(db_alias):
    make_cities(db_alias, 3)
    migration = make(Count)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 7)
    progress = work(migration, db_alias)
    assert (progress.status, progress.reason) == ("failed", states.OPERATION_ERROR)
    assert "7 workers in a row were lost in get_queryset(), or while reading keys at the beginning" in progress.error


def test_the_object_is_named_and_not_worked_again(db_alias):
    worked = []

    class Migration(Count):
        on_error = "stop"

        def operation(self, city, db_alias):
            worked.append(city.name)
            super().operation(city, db_alias)

    make_cities(db_alias, 5)
    migration = make(Migration)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 6)
    progress = work(migration, db_alias)
    first = City.objects.using(db_alias).order_by("pk").first()
    assert (progress.status, progress.reason, progress.acceptable) == ("failed", states.OPERATION_ERROR, 1)
    assert progress.error == (
        f"WorkersLost: 6 workers in a row were lost at the object with key {first.pk}: each was killed (for taking too "
        "much memory, for example), crashed, was stopped by a time limit, or hung. See the workers' logs, correct the "
        "migration or the data, and retry."
    )
    assert worked == []
    failure = MigrationFailure.objects.using(db_alias).get()
    assert (failure.object_key, failure.is_passed) == (str(first.pk), False)

    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert get_range(db_alias).takeovers == 0
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [1] * 5


def test_an_object_that_was_blamed_can_be_accepted(db_alias):
    make_cities(db_alias, 5)
    migration = make(Count)
    start(migration, db_alias)
    lose_workers(migration, db_alias, 6)
    work(migration, db_alias)
    accept(migration, db_alias, AUTHOR, "it is of no use", enqueue=False)
    assert get_range(db_alias).takeovers == 0
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [0, 1, 1, 1, 1]


def test_a_failed_object_that_is_retried_is_blamed_by_its_own_key(db_alias):
    class Migration(Count):
        on_error = "skip"
        is_broken = True

        def operation(self, city, db_alias):
            if self.is_broken and city.name in ("City 1", "City 3"):
                raise ValueError("wrong")
            super().operation(city, db_alias)

    make_cities(db_alias, 5)
    migration = make(Migration)
    run(migration, db_alias)
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    MigrationShard.objects.using(db_alias).filter(payload__isnull=False).update(takeovers=6)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed) == ("failed", 1)
    failure = MigrationFailure.objects.using(db_alias).get(status="open")
    bad = City.objects.using(db_alias).get(visits=0)
    assert (failure.object_key, bad.name in ("City 1", "City 3")) == (str(bad.pk), True)
    assert sum(get_visits(db_alias)) == 4


class Raises(Count):
    error: type[BaseException] = SystemExit
    place = "operation"
    raised = 0

    def stumble(self, place):
        if place == self.place and not self.raised:
            type(self).raised = 1
            raise self.error(0)

    def get_queryset(self, db_alias):
        self.stumble("get_queryset")
        return super().get_queryset(db_alias)

    def prepare(self, objects, db_alias):
        self.stumble("prepare")

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        self.stumble("operation")

    def verify(self, db_alias):
        self.stumble("verify")


@pytest.mark.parametrize(("db_alias", "error"), ON_DATABASES)
@pytest.mark.parametrize("place", ["operation", "prepare", "verify"])
def test_what_is_no_exception_hands_the_shard_back_counts_and_is_raised_again(db_alias, error, place):
    migration = make(type("Migration", (Raises,), {"error": error, "place": place}))
    make_cities(db_alias, 12)
    start(migration, db_alias)
    with pytest.raises(error):
        work(migration, db_alias)
    shards = [shard for shard in MigrationShard.objects.using(db_alias) if shard.status != "done"]
    assert [(shard.status, shard.lease_expires_at, shard.takeovers) for shard in shards] == [("ready", None, 1)]
    assert set(get_visits(db_alias)) == ({1} if place == "verify" else {0})
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [1] * 12


class OwnShards(CustomMigration):
    error: type[BaseException] = SystemExit
    place = "get_shards"
    raised = 0

    stumble = Raises.stumble

    def get_shards(self, db_alias):
        self.stumble("get_shards")
        return [None]

    def get_items(self, shard, cursor, db_alias):
        for number in range(0 if cursor is None else cursor + 1, 5):
            if number == 3:
                self.stumble("get_items")
            yield number, number

    def operation(self, item, db_alias):
        City.objects.using(db_alias).create(name=f"City {item}")


@pytest.mark.parametrize(("db_alias", "error"), ON_DATABASES)
@pytest.mark.parametrize("place", ["get_shards", "get_items"])
def test_the_same_in_the_code_of_a_custom_migration(db_alias, error, place):
    migration = make(type("Migration", (OwnShards,), {"error": error, "place": place}))
    start(migration, db_alias)
    with pytest.raises(error):
        work(migration, db_alias)
    shards = [shard for shard in MigrationShard.objects.using(db_alias) if shard.status != "done"]
    assert [(shard.status, shard.lease_expires_at, shard.takeovers) for shard in shards] == [("ready", None, 1)]
    assert work(migration, db_alias).status == "applied"
    assert City.objects.using(db_alias).count() == 5


@needs_postgres
def test_a_connection_that_is_cut_is_no_loss(settings):
    """Each cut ends a slice; a release over the connection that broke would fail, and leave the lease to run out."""

    class Migration(Count):
        max_retries = 0
        cuts = 0

        def verify(self, db_alias):
            if self.cuts < 3:
                type(self).cuts += 1
                with connections["postgres"].cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    make_cities("postgres", 5)
    migration = make(Migration)
    assert run(migration, "postgres").status == "applied"
    assert Migration.cuts == 3
    assert {shard.takeovers or 0 for shard in MigrationShard.objects.using("postgres")} == {0}


@needs_postgres
def test_a_shard_is_given_back_over_a_new_connection():
    make_cities("postgres", 5)
    migration = make(Count)
    start(migration, "postgres")
    shard = claim_range(migration, "postgres")
    with pytest.raises(OperationalError), connections["postgres"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    leases.give_back(shard, "postgres")
    assert (get_range("postgres").status, get_range("postgres").takeovers) == ("ready", None)


def test_unknown_counts_as_none(db_alias):
    make_cities(db_alias, 5)
    migration = make(Count)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    assert shard.takeovers is None
    assert not takeovers.is_searching(shard)
    run_write(db_alias, lambda: recorder.free_shards(shard.attempt_uuid, db_alias))
    assert get_range(db_alias).takeovers is None
