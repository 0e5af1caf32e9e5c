"""Django settings of the site that gunicorn serves; what differs from test to test comes from the environment."""

from __future__ import annotations

import os

from tests.cloud.settings import *  # noqa: F403
from tests.cloud.settings import INSTALLED_APPS, MIDDLEWARE
from tests.cloud.settings import LOGGING as QUIET
from tests.servers import cloudtasks

MASSMIGRATION_BACKEND = os.environ.get("SITE_BACKEND", "massmigration.backends.local.LocalBackend")

MASSMIGRATION_MODULES = {"cloudapp": os.environ.get("SITE_MIGRATIONS", "tests.cloud.e2e.massmigrations")}
MASSMIGRATION_TASK_LOCATION = cloudtasks.LOCATION
MASSMIGRATION_TASK_QUEUE = os.environ.get("SITE_QUEUE", "")
MASSMIGRATION_TASK_URL = os.environ.get("SITE_TASK_URL", "")

MASSMIGRATION_BATCH_SECONDS = 0.05
MASSMIGRATION_SLICE_SECONDS = 0.4
MASSMIGRATION_LEASE_SECONDS = float(os.environ.get("SITE_LEASE_SECONDS", "10"))
MASSMIGRATION_WATCH_SECONDS = float(os.environ.get("SITE_WATCH_SECONDS", "10"))

if os.environ.get("GAE_ENV"):  # there djangae's app asks for the account of a real project: a site without it
    INSTALLED_APPS = [app for app in INSTALLED_APPS if not app.startswith("djangae")]
    MIDDLEWARE = [path for path in MIDDLEWARE if not path.startswith("djangae")]
    ROOT_URLCONF = "tests.urls"

LOGGING = {
    **QUIET,
    "formatters": {"dated": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "dated"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
