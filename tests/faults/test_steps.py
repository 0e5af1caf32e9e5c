"""SIGKILL in each numbered step of the engine, for each kind: nothing is lost, nothing is done twice."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import massmigration
from tests.engine.support import in_threads
from tests.faults.steps import KINDS, QUEUE, STEPS
from tests.faults.support import make_cities
from tests.faults.traps import PLACES
from tests.faults.victims import QUEUE as ON_QUEUE
from tests.faults.victims import SETTINGS, Victim
from tests.testapp.models import City

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty", "queue_folder"),
]

KEYS = {kind: f"testapp:{number:04}_{kind}" for number, kind in enumerate(KINDS, start=11)}
ROWS = 20


@pytest.fixture(autouse=True)
def patient(settings: Any) -> None:
    """Make this process believe what its children do: it reads whether a run is stalled."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_each_step_of_a_local_run(kind, nursery, settings):
    def run(db_alias: str) -> None:
        make_cities(db_alias, ROWS)
        victim = Victim(nursery, KEYS[kind], db_alias, City, ROWS, SETTINGS)
        for number, step in enumerate(STEPS):
            if kind in step.kinds and step.transport != QUEUE:
                victim.try_step(step, "recover" if number % 9 == 8 else "worker")

    # Side by side, since most of the time goes by in waiting for the leases of the dead.
    in_threads(*(partial(run, alias) for alias in ("default", "postgres") if alias in settings.DATABASES))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_each_step_of_a_run_on_a_queue(kind, db_alias, nursery, settings):
    settings.MASSMIGRATION_BACKEND = ON_QUEUE["MASSMIGRATION_BACKEND"]
    make_cities(db_alias, ROWS)
    victim = Victim(nursery, KEYS[kind], db_alias, City, ROWS, {**SETTINGS, **ON_QUEUE})
    for number, step in enumerate(STEPS):
        # What has nothing to do with the queue is shown above, and here for one kind.
        if kind in step.kinds and (step.transport == QUEUE or kind == "mapper"):
            victim.try_step(step, "watch" if step.process != "start" and number % 4 else "recover")


def test_every_step_has_a_name_of_its_own_and_known_kinds():
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all(set(step.kinds) <= set(KINDS) for step in STEPS)


def test_every_place_of_a_sudden_death_is_a_function():
    """One that was renamed would never be met, and the worker would always live."""
    sources = "".join(path.read_text() for path in Path(massmigration.__file__).parent.rglob("*.py"))
    assert [name for name in PLACES if name and not re.search(rf"def {name}\(", sources)] == []
