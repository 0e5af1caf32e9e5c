"""Django settings of the benchmarks: the tests' site and databases, with a PostgreSQL server of their own."""

import os

from tests import servers

if "MASSMIGRATION_TEST_POSTGRES" not in os.environ:
    os.environ["MASSMIGRATION_TEST_POSTGRES"] = servers.start_postgres() or ""

from tests.settings import *  # noqa: F403

DATABASES["default"]["NAME"] = str(DIRECTORY / "benchmarks.sqlite3")  # noqa: F405
