"""kill -9 at any moment: nothing is lost, nothing is done twice, and the run ends APPLIED."""

from __future__ import annotations

import os
import random
import signal

import pytest

from massmigration import api
from tests.conftest import needs_postgres
from tests.faults import traps
from tests.faults.support import Site, describe, get_visits, make_cities

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

KINDS = {
    "testapp:0002_saves_itself": 600,
    "testapp:0003_batches": 1_500,
    "testapp:0004_custom": 600,
}

TRAPS = {
    "start, before commit": 1,
    "start, after commit": 1,
    "planning": 1,
    "begin, before commit": 1,
    "begin, after commit": 1,
    "object": 37,
    "rows written": 2,
    "cursor moved": 2,
    "shard taken": 2,
    "shard made": 1,
    "verify": 1,
    "finish, before commit": 1,
    "finish, after commit": 1,
}


@pytest.fixture
def chance() -> random.Random:
    """Chance that can be repeated: MASSMIGRATION_TEST_SEED=… is printed when the test fails."""
    seed = int(os.environ.get("MASSMIGRATION_TEST_SEED", random.randrange(10**6)))
    print(f"MASSMIGRATION_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def jobs(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}


@needs_postgres
def test_twenty_kills_of_commands_and_workers_in_one_run(popen_manage, tmp_path, chance):
    make_cities("postgres", 8_000)
    site = Site(popen_manage, tmp_path, "testapp:0001_writes_back", "postgres", workers=3, lease_seconds=1)
    site.kill_often(20, chance)
    assert describe(site) == {"status": "applied", "processed": 8_000, "visits": {1}}, site.tell()


@pytest.mark.parametrize("key", ["testapp:0001_writes_back", "testapp:0004_custom"])
@needs_postgres
def test_workers_that_hang_and_come_back_late(key, popen_manage, tmp_path, chance):
    make_cities("postgres", 1_500)
    site = Site(popen_manage, tmp_path, key, "postgres", workers=3, lease_seconds=0.5)
    site.freeze_often(3, chance, seconds=1.2)
    assert describe(site) == {"status": "applied", "processed": 1_500, "visits": {1}}, site.tell()


def test_six_kills_of_the_only_process_on_sqlite(popen_manage, tmp_path, chance):
    make_cities("default", 1_500)
    site = Site(popen_manage, tmp_path, "testapp:0001_writes_back", "default", lease_seconds=0.5)
    site.kill_often(6, chance)
    assert describe(site) == {"status": "applied", "processed": 1_500, "visits": {1}}, site.tell()


@pytest.mark.parametrize("key", KINDS)
def test_kills_of_each_kind(key, db_alias, popen_manage, tmp_path, chance):
    count = KINDS[key]
    make_cities(db_alias, count)
    workers = 2 if db_alias == "postgres" else 1
    site = Site(popen_manage, tmp_path, key, db_alias, workers=workers, lease_seconds=0.5)
    site.kill_often(3, chance)
    assert describe(site) == {"status": "applied", "processed": count, "visits": {1}}, site.tell()


def test_kills_of_a_simple_migration(db_alias, popen_manage, tmp_path, chance):
    make_cities(db_alias, 200)
    site = Site(popen_manage, tmp_path, "testapp:0005_simple", db_alias, lease_seconds=0.5)
    site.kill_often(2, chance, needs_rows=False)
    assert describe(site) == {"status": "applied", "processed": 1, "visits": {1}}, site.tell()


def test_a_death_in_each_step_of_a_run(db_alias, popen_manage, tmp_path):
    make_cities(db_alias, 150)
    site = Site(popen_manage, tmp_path, "testapp:0006_trapped", db_alias, lease_seconds=0.4)
    for name, at in TRAPS.items():
        trap = traps.lay(tmp_path, name, at)
        assert site.run() == -signal.SIGKILL, f"not killed by {name!r}: {site.tell()}"
        assert not trap.exists()
        has_ended = name == "finish, after commit"
        assert api.migration_is_applied(site.key, db_alias) == has_ended, name
        assert get_visits(db_alias) <= {0, 1}, name
    assert site.run() == 0, site.tell()
    assert describe(site) == {"status": "applied", "processed": 150, "visits": {1}}, site.tell()
