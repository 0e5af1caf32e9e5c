"""Fixtures of the commands' tests: migrations of their own, and commands run in this process or in others."""

from __future__ import annotations

import io
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from massmigration import api
from massmigration.api import Progress
from tests.testapp.models import City
from tests.throwaway import Throwaway, throwaway_apps

QUICK = {"DJANGO_SETTINGS_MODULE": "tests.jobs.settings"}


class Answer(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    output: str


@pytest.fixture(autouse=True)
def jobs(settings: Any) -> None:
    """Make the files in ``tests/jobs`` the migrations of ``testapp``, and the only ones."""
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.jobs", "adminapp": None}
    settings.MASSMIGRATION_LEASE_SECONDS = 2


@pytest.fixture
def other_app(tmp_path: Path, settings: Any) -> Iterator[Throwaway]:
    """Make apps for one test."""
    with throwaway_apps(tmp_path, settings) as maker:
        yield maker


@pytest.fixture
def manage() -> Callable[..., Answer]:
    """Run a command in this process."""

    def run(*args: str) -> Answer:
        out = io.StringIO()
        try:
            call_command(*args, stdout=out, stderr=out, no_color=True)
        except CommandError as error:
            return Answer(error.returncode, f"{out.getvalue()}{error}")
        except SystemExit as end:
            return Answer(int(end.code or 0), out.getvalue())
        return Answer(0, out.getvalue())

    return run


@pytest.fixture
def spawn(popen_manage: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Start a command in another process, in which Ctrl-C works even if this test run ignores it."""

    def start(*args: str, **options: Any) -> subprocess.Popen[str]:
        return popen_manage(
            *args, env=QUICK, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options
        )

    return start


def make_cities(db_alias: str, count: int, **fields: Any) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"city {number}", **fields) for number in range(count))


def get_visits(db_alias: str) -> set[int]:
    return set(City.objects.using(db_alias).values_list("visits", flat=True))


def wait_until(condition: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def wait_for_rows(key: str, db_alias: str, count: int = 1) -> Progress:
    """Wait until so many rows are done."""
    wait_until(lambda: api.get_record(key, db_alias) and (api.get_progress(key, db_alias).processed or 0) >= count)
    return api.get_progress(key, db_alias)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Answer:
    """Wait for a process and return what it said."""
    output, _ = process.communicate(timeout=seconds)
    return Answer(process.returncode, output or "")
