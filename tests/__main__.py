"""``python -m tests`` runs the tests in parallel; with ``--all`` also the fault campaigns and the tests on emulators.

Other arguments go to pytest. With paths only these are run: those below ``tests/cloud`` in a session with the settings
of the clouds, and a single file without workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import servers
from tests.servers import cloudtasks, datastore, firestore

CLOUD = "tests/cloud"
FAULTS = "tests/faults"
ALL = "--all"
MOST_WORKERS = 12  # they share one PostgreSQL server, and its 200 connections
MOST_CLOUD_WORKERS = 4  # each starts three emulators, which take a gigabyte

LEFT_OUT = (
    f"Left out: the fault campaigns ({FAULTS}) and the tests on the emulators of Google Cloud ({CLOUD}). "
    "Run them as well with: make test-all"
)

# With one of these the caller decides, or needs a session that runs in one process.
NO_WORKERS = {"--numprocesses", "--dist", "--pdb", "--trace", "--collect-only", "--co"}


def main(args: list[str]) -> int:
    """Run the sessions that ``args`` ask for, and return the exit code of the first that fails."""
    wants_all = ALL in args
    args = [arg for arg in args if arg != ALL]
    paths = [arg for arg in args if _is_path(arg)]
    if paths:
        return run_cloud(args) if any(_is_cloud(path) for path in paths) else run_pytest(args)
    if not wants_all:
        code = run_pytest([f"--ignore={FAULTS}", *args])
        print(LEFT_OUT)
        return code
    return run_pytest(args) or run_cloud([CLOUD, *args])


def _is_path(arg: str) -> bool:
    return not arg.startswith("-") and Path(arg.partition("::")[0]).exists()


def _is_cloud(path: str) -> bool:
    return path.removeprefix("./").startswith(CLOUD)


def run_cloud(args: list[str]) -> int:
    """Run pytest on the emulators; where they are missing say so, which only fails where everything is required."""
    if missing := servers.find_missing():
        print("The tests on Datastore, Firestore and Cloud Tasks are left out:", *missing)
        return int(os.environ.get("MASSMIGRATION_TEST_REQUIRE") == "all")
    is_shared = any(os.environ.get(module.HOST) for module in (cloudtasks, datastore, firestore))
    return run_pytest(["--ds=tests.cloud.settings", *args], most_workers=0 if is_shared else MOST_CLOUD_WORKERS)


def run_pytest(args: list[str], most_workers: int = MOST_WORKERS) -> int:
    """Run pytest in a process of its own, as each session has its own settings, and return its exit code."""
    args = [*get_parallel(args, most_workers), *args]
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of many processes would compile all of it again
    print("$ pytest", *args, flush=True)
    try:
        return subprocess.run([sys.executable, "-m", "pytest", *args], env=environment).returncode
    except KeyboardInterrupt:  # pytest got it as well, and has said so
        return 130


def get_parallel(args: list[str], most_workers: int = MOST_WORKERS) -> list[str]:
    """Return the options that spread the tests over workers; none where a single file is run or ``args`` say how.

    Most of the time a test waits, for a lease or for a process, so that there are two workers for each core.
    """
    paths = [arg for arg in args if _is_path(arg)]
    is_decided = any(arg.startswith("-n") or arg.partition("=")[0] in NO_WORKERS for arg in args)
    is_one_file = len(paths) == 1 and not Path(paths[0]).is_dir()
    if is_decided or is_one_file or not most_workers:
        return []
    return [f"-n{min(2 * count_cores(), most_workers)}", "--dist=worksteal"]


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
