"""Settings of the processes that are killed: short leases, migrations of their own."""

import os

from tests.settings import *  # noqa: F403

MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}
MASSMIGRATION_LEASE_SECONDS = float(os.environ["MASSMIGRATION_TEST_LEASE_SECONDS"])
