"""Django settings of the tests on the clouds: those of the other tests, with Datastore, Firestore and Cloud Tasks."""

from __future__ import annotations

import os

from tests import servers
from tests.cloud import third_party
from tests.servers import cloudtasks, gcloud

if servers.is_test_run() and (missing := servers.find_missing()):
    raise RuntimeError(" ".join(missing))

third_party.ignore_warnings()
servers.name_project()

from tests.settings import *  # noqa: E402, F403
from tests.settings import DATABASES, DIRECTORY, INSTALLED_APPS, MIDDLEWARE  # noqa: E402

ROOT_URLCONF = "tests.cloud.urls"
INSTALLED_APPS = [*INSTALLED_APPS, "djangae", "djangae.tasks", "tests.cloud.app"]
MIDDLEWARE = [*MIDDLEWARE, "djangae.tasks.middleware.TaskEnvironmentMiddleware"]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"  # djangae's apps name none
# What it says of each text field without an index, once in a process, would be in the way of what tests read.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"gcloudc.db.backends": {"level": "ERROR"}}}

CONNECTOR = {
    "PROJECT": gcloud.PROJECT,
    "INDEXES_FILE": str(DIRECTORY / f"djangaeidx{os.environ.get('PYTEST_XDIST_WORKER', '')}.yaml"),
    # There are no tables to make: without migrations the test databases are there at once.
    "TEST": {"MIGRATE": False},
}
DATABASES = {
    **DATABASES,
    "datastore": {
        "ENGINE": "gcloudc.db.backends.datastore",
        "OPTIONS": {"count_mode": "emulated"},  # the emulator cannot count
        **CONNECTOR,
    },
    "firestore": {"ENGINE": "gcloudc.db.backends.firestore", **CONNECTOR},
}
DATABASE_ROUTERS = ["tests.cloud.router.CloudRouter"]

CLOUD_TASKS_PROJECT_ID = gcloud.PROJECT
CLOUD_TASKS_LOCATION = cloudtasks.LOCATION
