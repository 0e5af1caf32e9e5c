"""``python -m tests`` runs all tests: a session on SQLite and PostgreSQL, and one on the emulators of Google Cloud.

Arguments go to pytest, in the first session; in the second, where they name ``tests/cloud``.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests import servers

CLOUD = "tests/cloud"


def main(args: list[str]) -> int:
    """Run the sessions that ``args`` ask for, and return the exit code of the first that fails."""
    is_cloud = any(arg.removeprefix("./").startswith(CLOUD) for arg in args)
    if not is_cloud and (code := run_pytest(*args)):
        return code
    if args and not is_cloud:
        return 0
    if missing := servers.find_missing():
        print("The tests on Datastore, Firestore and Cloud Tasks are left out:", *missing)
        return int(os.environ.get("MASSMIGRATION_TEST_REQUIRE") == "all")
    return run_pytest("--ds=tests.cloud.settings", *(args or [CLOUD]))


def run_pytest(*args: str) -> int:
    """Run pytest in a process of its own, as each has its own settings, and return its exit code."""
    print("$ pytest", *args, flush=True)
    try:
        return subprocess.run([sys.executable, "-m", "pytest", *args]).returncode
    except KeyboardInterrupt:  # pytest got it as well, and has said so
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
