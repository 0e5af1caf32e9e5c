"""Settings of the site that works for the conformance suite; the environment says which backend it has."""

import os

from tests.cloud.settings import *  # noqa: F403

MASSMIGRATION_BACKEND = os.environ["MASSMIGRATION_TEST_BACKEND"]
MASSMIGRATION_TASK_QUEUE = os.environ["MASSMIGRATION_TEST_QUEUE"]
MASSMIGRATION_TASK_LOCATION = CLOUD_TASKS_LOCATION  # noqa: F405
MASSMIGRATION_MODULES = {"massmigration": "massmigration.testing.massmigrations"}
MASSMIGRATION_SLICE_SECONDS = 0.2
MASSMIGRATION_WATCH_SECONDS = 1
