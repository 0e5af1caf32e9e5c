"""Trouble that does not pass at once, operations that are wrong altogether, turns, and workers that hang."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import OperationalError, connections

from massmigration import MapperMigration, SimpleMigration, executor, recorder, states
from massmigration.engine import isolation, planning
from massmigration.engine.failures import RESTS
from massmigration.engine.slice import Slice
from massmigration.exceptions import ConfigurationError
from massmigration.models import MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

only_sqlite = pytest.mark.django_db(transaction=True, databases=["default"])


class Count(MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias, count):
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias):
    return sorted(set(City.objects.using(db_alias).values_list("visits", flat=True)))


class Deadlock(Exception):
    sqlstate = "40P01"


def break_down():
    raise OperationalError("deadlock detected") from Deadlock()


class Fails(Count):
    on_error = "skip"
    serial = True
    share = 1.0

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        if int(city.name.split()[1]) % 100 < self.share * 100:
            raise ValueError("wrong")


@pytest.mark.parametrize(
    ("max_failures", "share", "expected"),
    [
        (None, 1.0, 101),  # all fail: a tenth of a thousand, however few there are
        (0.02, 0.2, 21),
        (0.02, 0.1, None),
        (0, 0.01, 1),
        (7, 0.05, 8),
    ],
)
@only_sqlite
def test_the_circuit_breaker(max_failures, share, expected):
    make_cities("default", 200)
    definition = type("Migration", (Fails,), {"max_failures": max_failures, "share": share})
    progress = run(definition, "default")
    if expected is None:
        assert (progress.reason, progress.failed) == (states.FAILURES_OPEN, 200 * share)
    else:
        assert (progress.reason, progress.failed) == (states.MAX_FAILURES, expected)
        assert f"{expected} of " in progress.error
        assert "Correct the operation and retry." in progress.error


@only_sqlite
def test_a_share_grows_with_the_rows_that_went_well():
    make_cities("default", 1200)

    class Migration(Fails):
        max_failures = 0.01

        def operation(self, city, db_alias):
            city.visits += 1
            if int(city.name.split()[1]) >= 1189:  # the last eleven, of which a thousand rows would allow ten
                raise ValueError("wrong")

    assert run(Migration, "default").reason == states.FAILURES_OPEN


@pytest.mark.parametrize("value", [1.0, 0.0, -1, True, "3", 1.5])
def test_bounds_that_cannot_work_are_refused(value):
    definition = type("Migration", (Fails,), {"max_failures": value})
    with pytest.raises(ConfigurationError, match=r"max_failures .* a share between 0 and 1"):
        start(make(definition), "default")


def test_a_shard_rests_while_trouble_lasts_and_goes_on_afterwards(db_alias, monkeypatch):
    monkeypatch.setattr(isolation, "LONGEST_REST_SECONDS", 0.5)  # long enough for ``on_progress`` to see it

    class Migration(Count):
        max_retries = 1
        calls = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 40" and self.calls < 5:
                type(self).calls += 1
                break_down()

    make_cities(db_alias, 100)
    waits = set()
    migration = make(Migration)
    progress = run(
        migration,
        db_alias,
        on_progress=lambda: waits.add(get_progress(migration.key, db_alias, migration).waiting_for),
    )
    assert (progress.status, progress.failed, progress.processed) == (states.APPLIED, 0, 100)
    assert get_visits(db_alias) == [1]
    assert Migration.calls == 5
    assert waits >= {"OperationalError: deadlock detected to pass"}
    assert {shard.retries for shard in MigrationShard.objects.using(db_alias)} == {0}


@pytest.mark.parametrize(
    ("db_alias", "kind"), [("default", "author"), pytest.param("postgres", "database", marks=needs_postgres)]
)
def test_only_after_all_rests_does_trouble_count_as_a_failure(db_alias, monkeypatch, kind):
    monkeypatch.setattr(isolation, "LONGEST_REST_SECONDS", 0.05)

    class Migration(Count):
        on_error = "skip"
        max_retries = 1
        transient_errors = (TimeoutError,)
        serial = True
        calls = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 40":
                type(self).calls += 1
                if kind == "database":
                    break_down()
                raise TimeoutError("the API does not answer")

    make_cities(db_alias, 100)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == (states.FAILED, states.FAILURES_OPEN, 1)
    assert City.objects.using(db_alias).filter(visits=1).count() == 99
    assert Migration.calls >= RESTS * 2, "each rest follows the repetitions"


def test_rests_grow_up_to_a_minute():
    seconds = [isolation.ErrorLasts(rests, ValueError("x")).seconds for rests in range(RESTS)]
    assert all(2**rests / 2 <= value <= 2**rests for rests, value in enumerate(seconds[:6]))
    assert 30 <= seconds[-1] <= 60


def test_others_wait_for_their_turn_and_say_for_whom(db_alias, settings, monkeypatch):
    settings.MASSMIGRATION_MAX_RUNNING = 1
    monkeypatch.setattr(planning, "TURN_SECONDS", 60)  # the next lines may take as long as they like
    make_cities(db_alias, 20)
    first, second = make(Count), make(Count, "0002_second")
    start(first, db_alias)
    shard = claim_range(first, db_alias)
    attempt_uuid = start(second, db_alias)
    (plan,) = recorder.get_shards(attempt_uuid, db_alias)
    from massmigration.engine.leases import claim

    assert claim(plan, second, db_alias, "b")
    assert Slice(plan, second, db_alias).run() == "resting"
    progress = get_progress(second.key, db_alias, second)
    assert progress.status == states.ENQUEUED
    assert progress.waiting_for == "its turn, behind testapp:0001_test"
    assert not progress.stalled
    Slice(shard, first, db_alias).run()
    assert work(first, db_alias).status == states.APPLIED
    recorder.free_shards(attempt_uuid, db_alias)  # its rest is over
    assert work(second, db_alias).status == states.APPLIED


@needs_postgres
def test_of_two_that_plan_at_the_same_moment_one_waits(settings, monkeypatch):
    settings.MASSMIGRATION_MAX_RUNNING = 1
    monkeypatch.setattr(planning, "TURN_SECONDS", 0.02)
    make_cities("postgres", 20)
    together: list[int] = []

    class Slow(Count):
        batch_size = 5

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            together.append(len(recorder.get_running("postgres")))

    migrations = [make(Slow, f"000{number}_x") for number in range(1, 5)]
    for migration in migrations:
        start(migration, "postgres")
    in_threads(*[lambda migration=migration: work(migration, "postgres") for migration in migrations])
    assert [get_progress(one.key, "postgres", one).status for one in migrations] == [states.APPLIED] * 4
    assert set(together) == {1}
    assert get_visits("postgres") == [4]


def test_a_worker_that_hangs_is_taken_over_and_its_commit_refused(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.5
    settings.MASSMIGRATION_HANG_SECONDS = 0.5
    free, hanging = threading.Event(), threading.Event()

    class Hangs(Count):
        batch_size = 10

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 5" and not hanging.is_set():
                hanging.set()
                free.wait(20)

    make_cities(db_alias, 30)
    migration = make(Hangs)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)

    def hang():
        return Slice(shard, migration, db_alias).run()

    def take_over():
        assert hanging.wait(20)
        progress = work(migration, db_alias)
        free.set()
        return progress

    outcome, progress = in_threads(hang, take_over)
    assert outcome == "lost"
    assert (progress.status, progress.processed) == (states.APPLIED, 30)
    assert get_visits(db_alias) == [1]


def test_the_length_of_a_single_call_says_nothing(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.6
    settings.MASSMIGRATION_HANG_SECONDS = 0.3

    class Long(SimpleMigration):
        calls = 0

        def operation(self, db_alias):
            type(self).calls += 1
            time.sleep(1.2)

    migration = make(Long)
    start(migration, db_alias)
    in_threads(lambda: work(migration, db_alias), lambda: work(migration, db_alias))
    assert get_progress(migration.key, db_alias, migration).status == states.APPLIED
    assert Long.calls == 1


@needs_postgres
def test_postgresql_frees_the_rows_of_a_worker_that_stands_still(settings):
    settings.MASSMIGRATION_HANG_SECONDS = 0.4
    make_cities("postgres", 5)
    seen = []

    class Hangs(Count):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if not seen:
                time.sleep(1)
                seen.append(City.objects.using(db_alias).count)

    executor.start(make(Hangs), "postgres", AUTHOR, enqueue=False)
    progress = work(make(Hangs), "postgres")
    assert (progress.status, progress.processed) == (states.APPLIED, 5)
    assert get_visits("postgres") == [1]
    with connections["postgres"].cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("0",), "it holds for our transactions only"
