"""Fixtures and hooks of all tests: real databases, real child processes, and no silent skips."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from tests import servers
from tests.faults.tally import Tally

ROOT = Path(__file__).resolve().parent.parent

SETTINGS_MODULE = settings.SETTINGS_MODULE  # read now: while a test changes settings, it is None

# They have their own settings, and emulators that take seconds to start.
collect_ignore = [] if SETTINGS_MODULE == "tests.cloud.settings" else ["cloud"]

needs_postgres = pytest.mark.needs_postgres

skipped: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Let signals work, for us and our children, although whoever started us in the background had them ignored."""
    if not hasattr(config, "workerinput"):  # the reports of all workers of pytest-xdist come to their parent
        config.pluginmanager.register(Tally())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where PostgreSQL is missing, skip what needs it and run the rest on the databases there are."""
    if "postgres" in settings.DATABASES:
        return
    for item in items:
        if item.get_closest_marker("needs_postgres"):
            item.add_marker(pytest.mark.skip(reason=servers.INSTALL_POSTGRES))
        marker = item.get_closest_marker("django_db")
        if marker and "postgres" in (marker.kwargs.get("databases") or ()):
            databases = [alias for alias in marker.kwargs["databases"] if alias in settings.DATABASES]
            item.add_marker(pytest.mark.django_db(**{**marker.kwargs, "databases": databases}), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector from going through all that was imported, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each skipped test; an expected failure is none."""
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped[report.nodeid] = _get_reason(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each module that is skipped as a whole."""
    if report.skipped:
        skipped[report.nodeid] = _get_reason(report)


def _get_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped although ``MASSMIGRATION_TEST_REQUIRE`` is ``all``."""
    if _is_skip_forbidden() and skipped and session.exitstatus in (pytest.ExitCode.OK, 5):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the tests that were skipped although they must not be."""
    if _is_skip_forbidden() and skipped:
        terminalreporter.section("skipped, but MASSMIGRATION_TEST_REQUIRE=all", red=True)
        for nodeid, reason in skipped.items():
            terminalreporter.line(f"{nodeid}: {reason}", red=True)


def _is_skip_forbidden() -> bool:
    return os.environ.get("MASSMIGRATION_TEST_REQUIRE") == "all"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """Make the test databases and tell their names to the processes that tests start."""
    for alias in connections:
        name = str(connections[alias].settings_dict["NAME"])
        os.environ[f"MASSMIGRATION_TEST_DB_{alias.upper()}"] = name


@pytest.fixture(params=["default", pytest.param("postgres", marks=needs_postgres)])
def db_alias(request: pytest.FixtureRequest) -> str:
    """Run the test on each database: SQLite as ``default``, PostgreSQL as ``postgres``."""
    return str(request.param)


@pytest.fixture
def popen_manage(django_db_setup: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python -m django …`` on the test databases; its process group is killed after the test.

    Keyword arguments are those of ``Popen``; ``env`` is added to the environment, and a value of None
    takes a variable away. Output and errors come as text through one pipe, ``stdout``.
    """
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str, env: Mapping[str, str | None] | None = None, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *args],
            env=get_environment(env),
            cwd=ROOT,
            text=True,
            start_new_session=True,
            **options,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # all of them have ended
            pass
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def run_manage(
    popen_manage: Callable[..., subprocess.Popen[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m django …`` on the test databases and return what it said and its exit code.

    ``env`` is as for ``popen_manage``, ``input`` the text to type, ``timeout`` is in seconds.
    """

    def run(
        *args: str,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002  (the name that subprocess.run uses)
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = popen_manage(*args, env=env, stdin=stdin, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate(input, timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


def get_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of a child process: ours, the settings of this run, and ``changes``."""
    environment: dict[str, str | None] = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": SETTINGS_MODULE,
        "PYTHONUNBUFFERED": "1",
        **(changes or {}),
    }
    return {name: value for name, value in environment.items() if value is not None}
