"""Settings of the commands that tests start on the emulators: short leases, and as much haste as the test wants."""

import os

from tests.cloud.settings import *  # noqa: F403
from tests.cloud.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [app for app in INSTALLED_APPS if not app.startswith("djangae")]  # it takes long to import
MIDDLEWARE = [path for path in MIDDLEWARE if not path.startswith("djangae")]
ROOT_URLCONF = "tests.urls"

MASSMIGRATION_MODULES = {"testapp": None, "adminapp": None}
MASSMIGRATION_LEASE_SECONDS = float(os.environ.get("MASSMIGRATION_TEST_LEASE_SECONDS", "2"))
MASSMIGRATION_BATCH_SECONDS = float(os.environ.get("MASSMIGRATION_TEST_BATCH_SECONDS", "0.01"))
