"""kill -9 at any moment: nothing is lost, nothing is done twice, and the run ends APPLIED."""

from __future__ import annotations

import pytest

from tests.conftest import needs_postgres
from tests.faults import table
from tests.faults.support import Site, describe, make_cities

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty"),
]

KINDS = {
    "testapp:0002_saves_itself": 600,
    "testapp:0003_batches": 1_500,
    "testapp:0004_custom": 600,
}


@needs_postgres
def test_twenty_kills_of_commands_and_workers_in_one_run(popen_manage, tmp_path, chance):
    make_cities("postgres", 8_000)
    site = Site(popen_manage, tmp_path, "testapp:0001_writes_back", "postgres", workers=3, lease_seconds=1)
    site.kill_often(20, chance)
    assert describe(site) == {"status": "applied", "processed": 8_000, "visits": {1}}, site.tell()
    table.count("kill of a worker at a random moment", site.db_alias, 20)


@pytest.mark.parametrize("key", ["testapp:0001_writes_back", "testapp:0004_custom"])
@needs_postgres
def test_workers_that_hang_and_come_back_late(key, popen_manage, tmp_path, chance):
    make_cities("postgres", 1_500)
    site = Site(popen_manage, tmp_path, key, "postgres", workers=3, lease_seconds=0.5)
    site.freeze_often(3, chance, seconds=1.2)
    assert describe(site) == {"status": "applied", "processed": 1_500, "visits": {1}}, site.tell()
    table.count("worker stopped for longer than its lease, and back late", site.db_alias, 3)


def test_six_kills_of_the_only_process_on_sqlite(popen_manage, tmp_path, chance):
    make_cities("default", 1_500)
    site = Site(popen_manage, tmp_path, "testapp:0001_writes_back", "default", lease_seconds=0.5)
    site.kill_often(6, chance)
    assert describe(site) == {"status": "applied", "processed": 1_500, "visits": {1}}, site.tell()
    table.count("kill of a worker at a random moment", site.db_alias, 6)


@pytest.mark.parametrize("key", KINDS)
def test_kills_of_each_kind(key, db_alias, popen_manage, tmp_path, chance):
    count = KINDS[key]
    make_cities(db_alias, count)
    workers = 2 if db_alias == "postgres" else 1
    site = Site(popen_manage, tmp_path, key, db_alias, workers=workers, lease_seconds=0.5)
    site.kill_often(3, chance)
    assert describe(site) == {"status": "applied", "processed": count, "visits": {1}}, site.tell()
    table.count("kill of a worker at a random moment", site.db_alias, 3)


def test_kills_of_a_simple_migration(db_alias, popen_manage, tmp_path, chance):
    make_cities(db_alias, 200)
    site = Site(popen_manage, tmp_path, "testapp:0005_simple", db_alias, lease_seconds=0.5)
    site.kill_often(2, chance, needs_rows=False)
    assert describe(site) == {"status": "applied", "processed": 1, "visits": {1}}, site.tell()
    table.count("kill of a worker at a random moment", site.db_alias, 2)
