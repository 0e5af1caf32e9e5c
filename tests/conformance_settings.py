"""Settings of the processes that work for the conformance suite: with its migrations."""

from tests.settings import *  # noqa: F403

MASSMIGRATION_MODULES = {"massmigration": "massmigration.testing.massmigrations"}
MASSMIGRATION_SLICE_SECONDS = 0.2
