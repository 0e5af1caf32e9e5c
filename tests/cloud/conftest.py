"""Fixtures of the tests on the clouds: databases that are emulators, and queues that deliver."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from tests import servers
from tests.cloud import third_party
from tests.conftest import needs_postgres
from tests.servers import clouds, cloudtasks, datastore, firestore

# Processes are killed in them: their leases and locks have to run out.
SLOW = ("test_steps.py", "test_site_faults.py", "TestKills", "test_site.py")

DATABASES = [alias for alias in ("default", "postgres", "datastore", "firestore") if alias in settings.DATABASES]


def pytest_configure(config: pytest.Config) -> None:
    """Start the emulators, and ignore, in this session only, warnings of packages that are not ours."""
    if settings.SETTINGS_MODULE != "tests.cloud.settings":
        raise pytest.UsageError("tests/cloud has settings of its own: pytest --ds=tests.cloud.settings tests/cloud")
    for line in third_party.FILTERS:
        config.addinivalue_line("filterwarnings", line)
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not distributes:  # else each worker has its own
        servers.start_emulators()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Let each test that works with the databases commit on all of them; pytest-django makes those that marks name."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "clean_databases" in fixtures and item.get_closest_marker("django_db") is None:
            item.add_marker(pytest.mark.django_db(transaction=True, databases=DATABASES))
    yield
    items[:] = _deal(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _deal(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Put the tests that take a minute first in the part of each worker, so that none has one of them at the end.

    ``--dist=worksteal`` cuts the list into parts of the same size, and each worker begins at the head of its own.
    """
    slow = [item for name in SLOW for item in items if name in item.nodeid]
    quick = [item for item in items if not any(name in item.nodeid for name in SLOW)]
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(dealt)) // (workers - worker)
        mine = slow[worker::workers]
        rest = max(0, size - len(mine))
        dealt += mine + quick[:rest]
        del quick[:rest]
    return dealt + quick


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """Keep Django's flush from looking for rows in each table of an emulator, which ``clean_databases`` empties."""
    for alias, variable in (("datastore", datastore.HOST), ("firestore", firestore.HOST)):
        if clouds.is_own(variable):
            connections[alias].ops.sql_flush = lambda *args, **options: []


@pytest.fixture(params=["datastore", "firestore"])
def db_alias(request: pytest.FixtureRequest, clean_databases: None) -> str:
    """Run the test on Datastore and on Firestore, with all databases at hand and empty."""
    return str(request.param)


@pytest.fixture(params=[pytest.param("postgres", marks=needs_postgres), "datastore", "firestore"])
def any_alias(request: pytest.FixtureRequest, clean_databases: None) -> str:
    """Run the test on PostgreSQL, on Datastore and on Firestore, with all databases at hand and empty."""
    return str(request.param)


@pytest.fixture
def clean_databases(_django_db_helper: None) -> Iterator[None]:
    """Let the test commit on all databases; after it they are empty again."""
    yield
    servers.empty_databases()


@pytest.fixture
def tasks_client() -> Iterator[Any]:
    """Return a ``CloudTasksClient`` of this run's emulator."""
    client = cloudtasks.get_client()
    yield client
    client.transport.close()


@pytest.fixture
def task_queue(tasks_client: Any) -> Iterator[str]:
    """Return the full name of an empty queue that no other test knows, and that is deleted after the test."""
    path = cloudtasks.get_queue_path(f"test-{uuid.uuid4().hex}")
    tasks_client.create_queue(parent=path.rpartition("/queues/")[0], queue={"name": path})
    yield path
    tasks_client.delete_queue(name=path)
