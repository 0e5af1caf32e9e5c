"""SIGKILL in each numbered step of the engine on Datastore and Firestore; what the engine writes is done once.

Planning, lease and finish are the same code for all kinds: they are tried with one. The steps within a batch differ
and are tried with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.app.models import Row
from tests.cloud.support import make_rows
from tests.conftest import get_environment
from tests.faults import table
from tests.faults.conftest import open_nursery, queue_folder  # noqa: F401
from tests.faults.nursery import Nursery
from tests.faults.steps import ANYWHERE, KINDS, QUEUE, STEPS, Step
from tests.faults.tally import counted_faults  # noqa: F401
from tests.faults.victims import QUEUE as ON_QUEUE
from tests.faults.victims import SETTINGS, Victim

pytestmark = pytest.mark.usefixtures("queue_folder")

KEYS = {kind: f"cloudapp:{number:04}_{kind}" for number, kind in enumerate(KINDS, start=1)}
ROWS = 32
BATCH_SIZE = 20  # of these files
# A heartbeat writes the entity that a batch writes as well: with a shorter lease the two meet on a busy machine, a
# batch is repeated, and the death comes elsewhere than in the step that is tried.
QUICK = {**SETTINGS, "MASSMIGRATION_LEASE_SECONDS": 2, "MASSMIGRATION_BATCH_SECONDS": 0.01}
IN_A_BATCH = [step for step in STEPS if step.name.startswith(("object", "commit of the first"))]


@pytest.fixture(scope="module")
def nursery(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Return what forks processes that know the emulators."""
    environment = get_environment({"DJANGO_SETTINGS_MODULE": "tests.cloud.quick"})
    yield from open_nursery(tmp_path_factory.mktemp("nursery"), environment)


@pytest.fixture(autouse=True)
def patient(settings: Any) -> None:
    """Make this process believe what its children do: it reads whether a run is stalled."""
    for name, value in QUICK.items():
        setattr(settings, name, value)
    settings.MASSMIGRATION_MODULES = {"testapp": None, "adminapp": None}


def is_quick(step: Step, db_alias: str) -> bool:
    """Return whether the run goes on soon after a death in this step."""
    return db_alias != "firestore" or table.is_tried_on_firestore(step)


def get_at(step: Step) -> int:
    """Return the meeting at which to die: an object behind the first batch, whose size differs from here to there."""
    return BATCH_SIZE + 1 if step.at > 1 and step.place == "operation" else 0


def test_a_kill_in_each_step_of_a_local_run(db_alias, nursery):
    make_rows(db_alias, ROWS)
    victim = Victim(nursery, KEYS["mapper"], db_alias, Row, ROWS, QUICK)
    for number, step in enumerate(STEPS):
        if "mapper" in step.kinds and step.transport == ANYWHERE and is_quick(step, db_alias):
            victim.try_step(step, "recover" if number % 9 == 8 else "worker", get_at(step))


def test_a_kill_around_each_enqueue(db_alias, nursery, settings):
    settings.MASSMIGRATION_BACKEND = ON_QUEUE["MASSMIGRATION_BACKEND"]
    make_rows(db_alias, ROWS)
    victim = Victim(nursery, KEYS["mapper"], db_alias, Row, ROWS, {**QUICK, **ON_QUEUE})
    for step in STEPS:
        if step.transport == QUEUE:
            victim.try_step(step, "recover" if step.process == "start" else "watch")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mapper"])
def test_a_kill_in_each_step_of_a_batch(kind, db_alias, nursery):
    make_rows(db_alias, ROWS)
    repeats = BATCH_SIZE if kind != "simple" else ROWS  # whose only call is its only batch
    victim = Victim(nursery, KEYS[kind], db_alias, Row, ROWS, QUICK, repeats=repeats)
    for step in IN_A_BATCH:
        if kind in step.kinds and is_quick(step, db_alias):
            victim.try_step(step, "worker", get_at(step))
