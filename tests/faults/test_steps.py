"""SIGKILL in each numbered step of the engine, for each kind: nothing is lost, nothing is done twice."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from massmigration import api, executor
from massmigration.recorder import Author
from tests.faults import steps, table
from tests.faults.invariants import check_end, check_numbers
from tests.faults.nursery import Child, Nursery
from tests.faults.queues import FolderBackend
from tests.faults.steps import KINDS, QUEUE, STEPS, Step
from tests.faults.support import get_visits, make_cities
from tests.testapp.models import City

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty", "queue_folder"),
]

KEYS = {kind: f"testapp:{number:04}_{kind}" for number, kind in enumerate(KINDS, start=11)}
ROWS = 20
AUTHOR = Author("tester", "api")

LEASE_SECONDS = 0.15
SETTINGS = {
    "MASSMIGRATION_LEASE_SECONDS": LEASE_SECONDS,
    "MASSMIGRATION_SLICE_SECONDS": 0.001,  # each visit is one batch
    "MASSMIGRATION_WATCH_SECONDS": 0.1,
}
ON_QUEUE = {**SETTINGS, "MASSMIGRATION_BACKEND": "tests.faults.queues.FolderBackend"}


class Victim:
    """One migration on one database, whose processes die.

    Args:
        nursery: Starts them.
        kind: The migration's kind.
        db_alias: The database.
        settings: Of the processes.
    """

    def __init__(self, nursery: Nursery, kind: str, db_alias: str, settings: dict[str, Any]) -> None:
        self.nursery, self.kind, self.db_alias, self.settings = nursery, kind, db_alias, settings
        self.key = KEYS[kind]
        self.has_queue = settings is ON_QUEUE

    def begin_again(self) -> None:
        """Forget what was before."""
        if api.get_record(self.key, self.db_alias) is not None:
            executor.reset(self.key, self.db_alias, AUTHOR)
        City.objects.using(self.db_alias).all().update(visits=0)
        FolderBackend.empty()

    def run(self, job: str, *arguments: Any, step: Step | None = None) -> Child:
        """Have a child do a job, until its end or its death."""
        return self.nursery.run(job, *arguments, step=step.name if step else "", settings=self.settings)

    def die(self, step: Step) -> Child:
        """Go as far as the step, and die there."""
        if not self.has_queue:
            return self.run("massmigrate", self.key, self.db_alias, step=step)
        if step.process == "start":
            return self.run("start", self.key, self.db_alias, step=step)
        assert self.run("start", self.key, self.db_alias).wait() == 0
        return self.run("deliver", step=step)

    def look(self) -> steps.Left:
        """Return what there is now."""
        visits = sum(City.objects.using(self.db_alias).values_list("visits", flat=True))
        return steps.look(self.key, self.db_alias, visits, len(FolderBackend.get_waiting()))

    def heal(self, way: str) -> None:
        """Have the run go on without the dead, in one of three ways: each finds the dead worker's shards alone.

        Args:
            way: ``"worker"``: another worker of the attempt comes along. ``"watch"``: the queue has the tasks that it
                had. ``"recover"``: the queue is empty, and ``massmigration recover`` runs as from cron.
        """
        if api.get_record(self.key, self.db_alias) is None:
            assert self.die_never("massmigrate" if not self.has_queue else "start") == 0
        if way == "recover":
            FolderBackend.empty()
            self.wait_until_stalled()
            arguments = ("recover", self.key, f"--database={self.db_alias}")
            if self.has_queue:
                arguments = (*arguments, "--no-wait")
            child = self.run("command", "massmigration", *arguments)
            assert child.wait() == 0, child.tell()
        if self.has_queue:
            child = self.run("deliver")
            assert child.wait() == 0, child.tell()
        elif way == "worker":
            child = self.run("work", self.key, self.db_alias)
            assert child.wait() == 0, child.tell()

    def die_never(self, job: str) -> int:
        """Do a job of the migration's to its end."""
        return self.run(job, self.key, self.db_alias).wait()

    def wait_until_stalled(self) -> None:
        deadline = time.monotonic() + 30
        while not api.get_progress(self.key, self.db_alias).stalled:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def patient(settings: Any) -> None:
    """Make this process believe what its children do: it reads whether a run is stalled."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)


def try_step(victim: Victim, step: Step, way: str) -> None:
    """Die in a step, look at what is left, heal, and look again."""
    victim.begin_again()
    child = victim.die(step)
    told = f"{step.name} ({victim.kind}, {victim.db_alias}, {way}): {child.tell()}"
    assert (child.wait(), child.met) == (-signal.SIGKILL, step.name), f"not killed in {told}"
    left = victim.look()
    assert step.left(left), f"{told} left {left}"
    is_counted = victim.kind != "simple"
    assert left.processed == (left.visits if is_counted else left.visits // ROWS), f"{told} left {left}"
    check_numbers(victim.key, victim.db_alias, visits=left.processed)
    if left.status == "not_run":
        victim.heal("worker")
    elif left.status != "applied":
        victim.heal(way)
    assert get_visits(victim.db_alias) == {1}, told
    check_end(victim.key, victim.db_alias, visits=ROWS if is_counted else 1)
    table.count(table.name_kill(step.name), victim.db_alias)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_each_step_of_a_local_run(kind, db_alias, nursery, patient):
    make_cities(db_alias, ROWS)
    victim = Victim(nursery, kind, db_alias, SETTINGS)
    for number, step in enumerate(STEPS):
        if kind in step.kinds and step.transport != QUEUE:
            try_step(victim, step, "recover" if number % 9 == 8 else "worker")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_each_step_of_a_run_on_a_queue(kind, db_alias, nursery, patient, settings):
    settings.MASSMIGRATION_BACKEND = ON_QUEUE["MASSMIGRATION_BACKEND"]
    make_cities(db_alias, ROWS)
    victim = Victim(nursery, kind, db_alias, ON_QUEUE)
    for number, step in enumerate(STEPS):
        if kind not in step.kinds:
            continue
        if step.transport != QUEUE and kind != "mapper":  # shown above; here for one kind
            continue
        has_watch = step.process != "start"
        try_step(victim, step, "watch" if has_watch and number % 4 else "recover")


def test_every_step_is_one_of_some_run():
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all(set(step.kinds) <= set(KINDS) for step in STEPS)
