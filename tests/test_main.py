"""``python -m tests``: what it runs in parallel, and what it leaves out and says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import __main__ as main
from tests.conftest import ROOT, get_environment
from tests.test_servers import FRESH


@pytest.mark.parametrize(
    ("args", "is_parallel"),
    [
        ((), True),
        (("-x", "-k", "pause"), True),
        (("--color=no",), True),
        (("tests/engine",), True),
        (("tests/test_api.py", "tests/test_conf.py"), True),
        (("tests/cloud",), True),
        (("tests/test_api.py",), False),
        (("tests/test_api.py::test_something", "-x"), False),
        (("-n0",), False),
        (("-n", "3", "tests/engine"), False),
        (("--numprocesses=3",), False),
        (("--pdb",), False),
    ],
)
def test_workers_are_used_but_for_a_single_file_or_where_the_arguments_say_how(args, is_parallel):
    assert bool(main.get_parallel(list(args))) is is_parallel


def list_tests(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests", "--collect-only", "-q", *args],
        cwd=ROOT,
        env=get_environment({**FRESH, "MASSMIGRATION_TEST_POSTGRES": "", "MASSMIGRATION_TEST_REQUIRE": None}),
        capture_output=True,
        text=True,
    )


def test_what_is_left_out_is_said_in_the_last_line():
    done = list_tests("-k", "kill or conf", "--ignore=tests/engine", "--ignore-glob=tests/test_[!c]*")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/test_conf.py" in done.stdout and "tests/faults/" not in done.stdout.partition("Left out")[0]
    assert done.stdout.splitlines()[-1] == main.LEFT_OUT


def test_a_folder_that_is_asked_for_is_run():
    done = list_tests("tests/faults", "-k", "kill")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/faults/test_kill.py" in done.stdout and "Left out" not in done.stdout
