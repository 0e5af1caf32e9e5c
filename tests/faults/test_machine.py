"""All that may happen to a run, in any order, with a look at the rules after each step."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as examples
from hypothesis.stateful import run_state_machine_as_test

from tests.faults import table
from tests.faults.machine import ALIAS, Machine

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default"]), pytest.mark.usefixtures("faulty")]

EXAMPLES = int(os.environ.get("MASSMIGRATION_TEST_EXAMPLES", "60"))


@pytest.fixture
def on_list(settings):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 0


@pytest.mark.usefixtures("on_list")
def test_whatever_happens_in_whatever_order_the_rules_hold():
    run_state_machine_as_test(
        Machine,
        settings=examples(
            deadline=None,
            derandomize="MASSMIGRATION_TEST_EXAMPLES" not in os.environ,
            database=None,
            max_examples=EXAMPLES,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
    table.count("actions of people, tasks and deaths in any order (state machine)", ALIAS, EXAMPLES)
