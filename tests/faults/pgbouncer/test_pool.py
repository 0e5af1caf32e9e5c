"""A pool that is too small, and connections that are cut behind it: that takes time, and every row is visited once."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from django.db import connections

from massmigration import MapperMigration, worker
from tests.conftest import needs_postgres
from tests.engine.support import get_progress, in_threads, make, run, start
from tests.faults.pgbouncer.conftest import ALIAS
from tests.faults.support import get_visits, make_cities
from tests.testapp.models import City

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "postgres"]), needs_postgres]

ROWS = 12


class Visit(MapperMigration):
    """Each batch is a transaction that keeps its connection for a while."""

    batch_size = 3
    shard_count = 2
    seconds = 0.0

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        time.sleep(self.seconds)
        city.visits += 1
        city.save(update_fields=["visits"])


def run_in_threads(count: int, definition: type[Visit]) -> Any:
    migration = make(definition)
    attempt_uuid = start(migration, ALIAS)
    connections[ALIAS].close()  # or it would wait for a connection as well
    in_threads(*[lambda: worker.work(make(definition), ALIAS, attempt_uuid)] * count)
    return get_progress(migration.key, ALIAS, migration)


class LongerThanItsLease(Visit):
    seconds = 0.4


@pytest.mark.parametrize("pool", [{"pool_size": 1}, {"pool_size": 1, "query_wait_seconds": 1}], indirect=True)
def test_workers_that_wait_for_the_only_connection_visit_every_row_once(pool, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.6  # its heartbeat waits for the connection that its worker has
    make_cities(ALIAS, ROWS)
    progress = run_in_threads(3, LongerThanItsLease)
    assert (progress.status, progress.processed, progress.failed) == ("applied", ROWS, 0), progress.error
    assert get_visits(ALIAS) == {1}


class HangsOnce(Visit):
    update_fields = ()
    hangs = threading.Event()

    def operation(self, city, db_alias):
        if not self.hangs.is_set():
            self.hangs.set()
            time.sleep(1.5)
        super().operation(city, db_alias)


def test_a_transaction_that_idles_is_ended_behind_the_pool_and_done_again(pool, settings):
    settings.MASSMIGRATION_HANG_SECONDS = 0.5
    HangsOnce.hangs.clear()
    make_cities(ALIAS, ROWS)
    progress = run(HangsOnce, ALIAS)
    assert (progress.status, progress.processed, progress.failed) == ("applied", ROWS, 0), progress.error
    assert get_visits(ALIAS) == {1}
    assert pool.find_state() == []


class IsCut(Visit):
    """In the middle of a batch the server ends all connections, as in a fail-over."""

    server = ""
    cuts = 0

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        if type(self).cuts < 3:
            type(self).cuts += 1
            with psycopg.connect(self.server, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )


def test_connections_that_are_cut_behind_the_pool_lose_nothing(pool):
    IsCut.server, IsCut.cuts = pool.server_url, 0
    make_cities(ALIAS, ROWS)
    progress = run_in_threads(2, IsCut)
    assert IsCut.cuts == 3
    assert (progress.status, progress.processed, progress.failed) == ("applied", ROWS, 0), progress.error
    assert get_visits(ALIAS) == {1}
