"""Settings of processes that tests start with CloudTasksBackend."""

from tests.settings import *  # noqa: F403

MASSMIGRATION_BACKEND = "massmigration.backends.cloudtasks.CloudTasksBackend"
MASSMIGRATION_TASK_PROJECT = "test"
MASSMIGRATION_TASK_LOCATION = "europe-west1"
