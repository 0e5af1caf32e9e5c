"""Every kind of migration behind PgBouncer in transaction mode: each transaction may be on another connection."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from massmigration import api, states
from tests.conftest import needs_postgres
from tests.faults import traps
from tests.faults.pgbouncer.conftest import ALIAS
from tests.faults.support import Site, get_visits, make_cities

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty"),
    needs_postgres,
]

KINDS = ("0001_writes_back", "0002_saves_itself", "0003_batches", "0004_custom", "0005_simple")
ROWS = 300


class PooledSite(Site):
    """One migration whose processes come through the pool."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, db_alias=ALIAS, **options)
        self._environment["DJANGO_SETTINGS_MODULE"] = "tests.faults.pgbouncer.settings"


def describe(key: str) -> tuple[str, int | None, set[int]]:
    progress = api.get_progress(key, ALIAS)
    return progress.status, progress.processed, get_visits(ALIAS)


@pytest.mark.parametrize("name", KINDS)
def test_two_workers_visit_every_row_once_and_leave_nothing_on_the_connections(name, pool, popen_manage, tmp_path):
    make_cities(ALIAS, ROWS)
    site = PooledSite(popen_manage, tmp_path, f"testapp:{name}", workers=2, lease_seconds=2)
    assert site.run() == 0, site.tell()
    assert describe(site.key) == ("applied", 1 if name == "0005_simple" else ROWS, {1}), site.tell()
    assert pool.find_state() == []


def test_what_is_left_on_a_connection_is_found(pool):
    from django.db import connections

    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SET statement_timeout = '7s'")
        cursor.execute("SELECT pg_advisory_lock(7)")
    assert sorted(line.split(" ")[0] for line in pool.find_state()) == ["advisory", "setting"]


def test_a_pause_and_a_resume(pool, popen_manage, tmp_path):
    make_cities(ALIAS, ROWS)
    site = PooledSite(popen_manage, tmp_path, "testapp:0001_writes_back", workers=2, lease_seconds=2)
    brake = traps.lay(tmp_path, traps.BRAKE)
    command = site.start()
    site._wait_for_work(0)
    api.pause_migration(site.key, ALIAS)
    assert command.wait(60) == 3, site.tell()
    assert api.get_progress(site.key, ALIAS).status == states.PAUSED
    brake.unlink()
    api.resume_migration(site.key, ALIAS, enqueue=False)
    assert site.run() == 0, site.tell()
    assert describe(site.key) == ("applied", ROWS, {1}), site.tell()


@pytest.mark.parametrize("name", ["0001_writes_back", "0002_saves_itself"])
def test_workers_that_are_killed(name, pool, popen_manage, tmp_path):
    make_cities(ALIAS, ROWS)
    site = PooledSite(popen_manage, tmp_path, f"testapp:{name}", workers=2, lease_seconds=1)
    site.kill_often(2, random.Random(7))
    assert describe(site.key) == ("applied", ROWS, {1}), site.tell()
    assert pool.find_state() == []


def test_an_interrupted_command_gives_its_connection_back(pool, popen_manage, tmp_path):
    make_cities(ALIAS, ROWS)
    site = PooledSite(popen_manage, tmp_path, "testapp:0002_saves_itself", lease_seconds=2)
    traps.lay(tmp_path, traps.BRAKE).touch()
    command = site.start()
    site._wait_for_work(0)
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 143, site.tell()
    assert pool.find_state() == []
