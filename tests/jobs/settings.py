"""Settings of the processes that the tests of the commands start: short leases, migrations of their own."""

from tests.settings import *  # noqa: F403

MASSMIGRATION_MODULES = {"testapp": "tests.jobs", "adminapp": None}
MASSMIGRATION_LEASE_SECONDS = 2
