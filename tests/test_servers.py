"""The ground that the tests stand on: servers that end with their run, and no skip that nobody sees."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import ROOT, get_environment, needs_postgres
from tests.servers import gcloud

START_AND_WAIT = """
import os, sys, time
import pytest
from tests import servers
servers.get_postgres()
print(os.environ["MASSMIGRATION_TEST_POSTGRES"], flush=True)
time.sleep(600)
"""

ONE_TEST = """
def test_once(db_alias):
    assert db_alias in ("default", "postgres")
"""

ONE_MODULE = """
import pytest
pytest.importorskip("no_such_package", reason="no_such_package is not installed")
"""

FRESH = {
    "MASSMIGRATION_TEST_DB_DEFAULT": None,
    "MASSMIGRATION_TEST_DB_POSTGRES": None,
    "MASSMIGRATION_TEST_DIRECTORY": None,
    "MASSMIGRATION_TEST_POSTGRES": None,
    "PYTEST_ADDOPTS": None,
    "PYTEST_XDIST_WORKER": None,
    "PYTEST_XDIST_WORKER_COUNT": None,
    "PYTEST_XDIST_TESTRUNUID": None,
}


@needs_postgres
def test_postgres_ends_with_the_process_that_started_it():
    import psycopg

    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        cwd=ROOT,
        env=get_environment(FRESH),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    with owner.stdout:
        url = f"{owner.stdout.readline().strip()}/postgres"
        with psycopg.connect(url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        connection.close()
        assert row
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 30
    while Path(row[0]).parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def run_pytest(directory: Path, *options: str, require: str | None) -> subprocess.CompletedProcess[str]:
    """Run the tests of ``directory`` where PostgreSQL is missing."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = needs_postgres\n")
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", *plugins, *options, str(directory)],
        cwd=ROOT,
        env=get_environment(
            {**FRESH, "MASSMIGRATION_TEST_POSTGRES": "", "MASSMIGRATION_TEST_REQUIRE": require, "COLUMNS": "200"}
        ),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("workers", "require"), [("-n0", None), ("-n2", "all")])
def test_skip_fails_the_run_only_where_everything_is_required(tmp_path, workers, require):
    (tmp_path / "test_once.py").write_text(ONE_TEST)
    (tmp_path / "test_module.py").write_text(ONE_MODULE)
    done = run_pytest(tmp_path, workers, require=require)
    assert done.returncode == (1 if require else 0), done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert servers.INSTALL_POSTGRES in done.stdout
    assert "no_such_package is not installed" in done.stdout
    assert ("MASSMIGRATION_TEST_REQUIRE=all" in done.stdout) is (require == "all")


def test_module_that_is_skipped_as_a_whole_fails_the_run_as_well(tmp_path):
    (tmp_path / "test_module.py").write_text(ONE_MODULE)
    done = run_pytest(tmp_path, "-n0", require="all")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no_such_package is not installed" in done.stdout


PROGRAM = "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize(
    ("programs", "line"),
    [
        ([], gcloud.INSTALL_GCLOUD),
        (["gcloud"], gcloud.INSTALL_JAVA),
        (["gcloud", "java"], "gcloud components install beta cloud-firestore-emulator"),
    ],
)
@pytest.mark.parametrize(("require", "code"), [("all", 1), (None, 0)])
def test_tests_on_the_clouds_are_left_out_with_a_line_that_says_what_to_install(
    tmp_path, programs, line, require, code
):
    for name in programs:
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    environment = {
        **FRESH,
        "PATH": str(tmp_path),
        "MASSMIGRATION_TEST_REQUIRE": require,
        "DATASTORE_EMULATOR_HOST": None,
        "FIRESTORE_EMULATOR_HOST": None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests", "tests/cloud"],
        cwd=ROOT,
        env=get_environment(environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert line in done.stdout


def test_tests_on_the_clouds_say_which_settings_they_need():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/cloud"],
        cwd=ROOT,
        env=get_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = "ERROR: tests/cloud has settings of its own: pytest --ds=tests.cloud.settings tests/cloud"
    assert done.stderr.strip() == said
