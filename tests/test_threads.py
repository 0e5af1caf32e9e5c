"""Workers that are threads of one process share nothing of a definition that an instance holds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from django.db import models

from massmigration import api
from massmigration.discovery.loader import clear_loader
from tests.conftest import ROOT, get_environment, needs_postgres
from tests.servers import processes
from tests.testapp.models import City
from tests.threads.backends import PoolBackend

pytestmark = [needs_postgres, pytest.mark.django_db(transaction=True, databases=["default", "postgres"])]

PREPARED = "testapp:0001_prepared"
ROWS = 2_000
THREADS = 4


@pytest.fixture(autouse=True)
def migrations(settings) -> Iterator[None]:
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.threads.massmigrations", "adminapp": None}
    City.objects.using("postgres").bulk_create(City(name=f"city {number}") for number in range(ROWS))
    yield
    clear_loader()


@pytest.fixture
def pool(settings) -> Iterator[None]:
    """A queue whose tasks are called by threads of this process."""
    settings.MASSMIGRATION_BACKEND = "tests.threads.backends.PoolBackend"
    PoolBackend.errors.clear()
    with ThreadPoolExecutor(THREADS) as PoolBackend.pool:
        yield
    PoolBackend.pool = None
    assert PoolBackend.errors == []


@pytest.fixture
def site(settings, monkeypatch) -> Iterator[processes.Server]:
    """A site of one process with four threads, which is its own queue."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install -r requirements/test.txt")
    port = processes.get_free_port()
    settings.MASSMIGRATION_BACKEND = "tests.threads.backends.HttpBackend"
    settings.THREADS_SITE = f"http://127.0.0.1:{port}"
    changes = {
        "DJANGO_SETTINGS_MODULE": "tests.threads.settings",
        "GAE_ENV": "standard",
        "MASSMIGRATION_TEST_THREADS_SITE": settings.THREADS_SITE,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "gunicorn", "--workers=1", f"--threads={THREADS}", f"--bind=127.0.0.1:{port}"]
    command += ["--timeout=0", "--no-control-socket", "django.core.wsgi:get_wsgi_application()"]
    directory = Path(tempfile.mkdtemp(prefix="massmigration-threads-"))
    server = processes.start(
        "The site", port, command, directory, stop=processes.KILL_GROUP, env=get_environment(changes)
    )
    server.wait(answers)
    yield server
    server.stop()


def answers(server: processes.Server) -> bool:
    try:
        with urlopen(f"http://{server.address}/admin/login/", timeout=20) as response:
            return bool(response.status == 200)
    except URLError:
        return False


def count_untouched() -> int:
    return City.objects.using("postgres").exclude(note=models.F("name")).count()


def test_what_prepare_keeps_is_one_workers_own(pool):
    api.start_migration(PREPARED, "postgres", actor="tester")
    progress = api.wait_for_migration(PREPARED, "postgres", timeout=60)
    assert (progress.status, count_untouched()) == ("applied", 0)


def test_what_prepare_keeps_is_one_threads_own_behind_gunicorn(site):
    api.start_migration(PREPARED, "postgres", actor="tester")
    progress = api.wait_for_migration(PREPARED, "postgres", timeout=60)
    assert (progress.status, count_untouched()) == ("applied", 0), site.read_log()
