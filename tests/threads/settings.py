"""Settings of the site whose threads are the workers: it sends its tasks to itself, as App Engine would."""

import os

from tests.settings import *  # noqa: F403

MASSMIGRATION_MODULES = {"testapp": "tests.threads.massmigrations", "adminapp": None}
MASSMIGRATION_BACKEND = "tests.threads.backends.HttpBackend"
THREADS_SITE = os.environ.get("MASSMIGRATION_TEST_THREADS_SITE", "")
