"""Many short runs with faults that chance chooses: kills, a bad queue, people, a busy site, a server in trouble."""

from __future__ import annotations

import os
import random

import pytest

from tests.conftest import needs_postgres
from tests.faults import storms, table, troubles
from tests.faults.restarting import OwnPostgres

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty", "queue_folder"),
]

RUNS = int(os.environ.get("MASSMIGRATION_TEST_RUNS", "50"))
"""So many of each mixture on each database; fewer where a server is restarted, or a database in trouble."""


def run_storms(count: int, seed: int, make) -> None:
    """Run storm after storm, each with a seed of its own, which is told when it fails."""
    for number in range(count):
        own = seed if "MASSMIGRATION_TEST_SEED" in os.environ else seed + number
        storm = make(random.Random(own))
        try:
            storm.run()
        except BaseException as error:
            print(f"MASSMIGRATION_TEST_SEED={own}\n{storm.tell()}")
            raise AssertionError(f"MASSMIGRATION_TEST_SEED={own} repeats it") from error
        for fault, times in storm.made.items():
            table.count(fault, storm.db_alias, times)
        if "MASSMIGRATION_TEST_SEED" in os.environ:
            return


def test_a_bad_queue_people_and_a_busy_site(db_alias, seed, settings):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 0
    run_storms(RUNS, seed, lambda chance: storms.QueueStorm(chance, db_alias))


def test_kills_people_and_a_busy_site(db_alias, seed, nursery):
    run_storms(RUNS, seed, lambda chance: storms.KillStorm(chance, db_alias, nursery))


def test_a_database_that_refuses_to_write(db_alias, seed, nursery):
    run_storms(RUNS // 5, seed, lambda chance: troubles.ReadOnlyStorm(chance, db_alias, nursery))


def test_a_disk_that_is_full(seed, nursery):
    run_storms(RUNS // 3, seed, lambda chance: troubles.FullStorm(chance, "default", nursery))


@needs_postgres
def test_deadlocks_and_cut_connections(seed, nursery):
    run_storms(RUNS // 3, seed, lambda chance: troubles.ServerStorm(chance, "postgres", nursery))


@needs_postgres
def test_a_server_that_is_restarted(seed, nursery):
    with OwnPostgres("postgres") as server:
        run_storms(RUNS // 10, seed, lambda chance: troubles.RestartStorm(chance, "postgres", nursery, server))
