"""The conformance suite over LocalBackend and over a queue in memory, and its own tests: it finds bad backends."""

from __future__ import annotations

import os
import random
import unittest
from contextlib import contextmanager
from unittest import mock

import pytest
from django.test import override_settings

from massmigration import testing

CHANCE = random.Random(7)


class TestMemoryQueue(testing.BackendConformance):
    backend = "massmigration.testing.MemoryQueueBackend"
    quiet_seconds = 0.3

    def setUp(self):
        super().setUp()
        testing.MemoryQueueBackend.reset()

    def deliver(self):
        CHANCE.shuffle(testing.MemoryQueueBackend.waiting)
        testing.MemoryQueueBackend.deliver()

    @contextmanager
    def unreachable(self):
        testing.MemoryQueueBackend.is_reachable = False
        yield
        testing.MemoryQueueBackend.is_reachable = True

    @contextmanager
    def losing(self):
        testing.MemoryQueueBackend.is_losing = True
        yield
        testing.MemoryQueueBackend.is_losing = False


class TestLocalBackend(testing.BackendConformance):
    """The detached processes have settings of their own, with the suite's migrations."""

    backend = "massmigration.backends.local.LocalBackend"

    def setUp(self):
        environment = mock.patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "tests.conformance_settings"})
        environment.start()
        self.addCleanup(environment.stop)
        super().setUp()

    @contextmanager
    def unreachable(self):
        with override_settings(MASSMIGRATION_LOG_DIR="/dev/null/logs"):
            yield

    @contextmanager
    def losing(self):
        with override_settings(MASSMIGRATION_PYTHON="/bin/true"):  # it ends at once, and nobody can tell
            yield


class EarlyBackend(testing.MemoryQueueBackend):
    """Knows of no transactions."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        with mock.patch("django.db.transaction.on_commit", lambda call, using: call()):
            super().enqueue(task, arguments, db_alias=db_alias, delay_seconds=delay_seconds, name=name)


class HastyBackend(testing.MemoryQueueBackend):
    """Knows of no delays."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        super().enqueue(task, arguments, db_alias=db_alias, name=name)


class WesternBackend(testing.MemoryQueueBackend):
    """Knows of no letters but A to Z."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        arguments = {key: value.encode("ascii", "replace").decode() for key, value in arguments.items()}
        super().enqueue(task, arguments, db_alias=db_alias, delay_seconds=delay_seconds, name=name)


class QuietBackend(testing.MemoryQueueBackend):
    """Tells nobody that the queue is down."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        if self.is_reachable:
            super().enqueue(task, arguments, db_alias=db_alias, delay_seconds=delay_seconds, name=name)


class LosingBackend(testing.MemoryQueueBackend):
    """Loses what it is given."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        pass


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("bad", "test", "said"),
    [
        (EarlyBackend, "test_a_task_is_delivered_after_the_commit", "before the commit"),
        (EarlyBackend, "test_a_task_is_not_delivered_after_a_rollback", "after a rollback"),
        (HastyBackend, "test_a_delay_is_kept", "seconds too early"),
        (WesternBackend, "test_arguments_arrive_as_they_were", "did not happen within 1 seconds"),
        (
            QuietBackend,
            "test_an_unreachable_queue_is_told_and_can_be_retried",
            "does not say that the queue",
        ),
        (LosingBackend, "test_a_migration_runs_to_its_end_and_visits_each_item_once", "did not happen"),
    ],
)
def test_the_suite_finds_what_is_wrong_with_a_backend(bad, test, said):
    class Suite(TestMemoryQueue):
        backend = f"{__name__}.{bad.__name__}"
        patience_seconds = 1 if "did not happen" in said else 30

    result = unittest.TestResult()
    Suite(test).run(result)
    ((_, trace),) = [*result.failures, *result.errors]
    assert said in trace


@pytest.mark.django_db(transaction=True)
def test_what_the_suite_cannot_try_is_said():
    class Suite(testing.BackendConformance):
        backend = "massmigration.testing.MemoryQueueBackend"

    reasons = []
    for test in ("test_an_unreachable_queue_is_told_and_can_be_retried", "test_a_task_that_got_lost_is_found"):
        result = unittest.TestResult()
        Suite(test).run(result)
        reasons += [reason for _, reason in result.skipped]
    assert [reason.rpartition(": ")[2] for reason in reasons] == ["give it unreachable().", "give it losing()."]


@pytest.mark.django_db(transaction=True)
def test_the_suite_itself_is_no_test():
    result = unittest.TestResult()
    testing.BackendConformance("test_a_delay_is_kept").run(result)
    assert [reason for _, reason in result.skipped] == ["BackendConformance is to be subclassed."]
