"""One run with faults that chance chooses, and what has to be right after it."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from django.db import connections
from django.test import override_settings

from massmigration import api, executor, recorder, states
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord, MigrationShard
from massmigration.recorder import Author
from tests.engine.support import in_threads
from tests.faults import traps
from tests.faults.invariants import check_end, check_numbers
from tests.faults.nursery import Child, Nursery
from tests.faults.queues import FolderBackend, ListBackend
from tests.faults.site import Site
from tests.faults.steps import KINDS, STEPS

AUTHOR = Author("storm", "api")
SETTINGS = {
    "MASSMIGRATION_LEASE_SECONDS": 0.15,
    "MASSMIGRATION_WATCH_SECONDS": 0.1,
    "MASSMIGRATION_SLICE_SECONDS": 0.02,
    "MASSMIGRATION_RECORD_CACHE_TIMEOUT": 0.01,
}
ON_QUEUE = {**SETTINGS, "MASSMIGRATION_BACKEND": "tests.faults.queues.FolderBackend"}
ROUNDS = 12
COMMITS = [step for step in STEPS if step.name.startswith("commit")] * 5  # where a death does most


class Storm:
    """One run; subclasses say what happens in it.

    Args:
        chance: Decides all.
        db_alias: The database.
    """

    def __init__(self, chance: random.Random, db_alias: str) -> None:
        self.chance, self.db_alias = chance, db_alias
        self.kind = chance.choice(KINDS)
        self.key = f"testapp:{KINDS.index(self.kind) + 11:04}_{self.kind}"
        self.made: Counter[str] = Counter()
        self.deeds: list[str] = []
        self.settings: dict[str, Any] = SETTINGS

    def tell(self) -> str:
        """Return what was done, for the message of a test that fails."""
        return "\n".join([f"{self.key} on {self.db_alias}", *self.deeds])

    def run(self) -> None:
        """Do all of it."""
        with override_settings(**self.settings):
            self._forget()
            self.site = Site(self.chance, self.db_alias, self.chance.randint(10, 24))
            try:
                self.rage()
                self.calm()
            finally:
                self.end()
            self.check()

    def rage(self) -> None:
        """Begin the run, and make the faults."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Have what is open be worked, without faults."""
        raise NotImplementedError

    def settle(self) -> None:
        """See that nobody is at work."""

    def end(self) -> None:
        """Leave nothing behind."""

    def _forget(self) -> None:
        FolderBackend.empty()
        ListBackend.empty()
        traps.mend()
        for model in (MigrationRecord, MigrationShard):
            model._default_manager.using(self.db_alias).filter(key=self.key).delete()

    def get_status(self) -> str:
        """Return the record's status."""
        record = recorder.get_record(self.key, self.db_alias)
        return record.status if record is not None else states.NOT_RUN

    def note(self, deed: str) -> None:
        """Write down what was done."""
        self.deeds.append(deed)

    def pause(self) -> None:
        """Pause, if it can be paused; whoever calms the storm resumes."""
        try:
            executor.pause(self.key, self.db_alias, AUTHOR)
        except IllegalMove:
            return
        self.note("pause")
        check_numbers(self.key, self.db_alias)

    def find_way_out(self) -> None:
        """Do what a person does in this status, until it is worked again."""
        status = self.get_status()
        migration = api.get_migration(self.key)
        has_queue = "MASSMIGRATION_BACKEND" in self.settings
        actions: dict[str, Any] = {
            states.NOT_RUN: executor.start,
            states.PAUSED: executor.resume,
            states.FAILED: executor.retry,
            states.ENQUEUED: executor.recover,
            states.RUNNING: executor.recover,
        }
        if status not in actions or (not has_queue and status in states.ACTIVE):
            return
        self.note(f"{status}: {actions[status].__name__}")
        actions[status](migration, self.db_alias, AUTHOR, enqueue=has_queue)
        if status == states.PAUSED:
            self.made["pause and resume in mid-run"] += 1

    def calm(self) -> None:
        """Go on until it is applied; each status has a way out."""
        for _ in range(ROUNDS):
            self.settle()
            if self.get_status() == states.APPLIED:
                return
            self.find_way_out()
            self.go_on()
        raise AssertionError(f"no way leads out: {api.get_progress(self.key, self.db_alias)}")

    def check(self) -> None:
        """Look at each row and each number."""
        visits, deleted = self.site.check()
        self.made.update(self.site.made)
        check_end(self.key, self.db_alias)
        processed = api.get_progress(self.key, self.db_alias).processed
        assert processed is not None
        if self.kind == "simple":
            assert processed == 1
        elif self.kind == "custom":  # its items are keys: one whose row is gone is an item all the same
            assert visits <= processed <= visits + deleted
        else:
            assert processed == visits, "processed are the rows that committed batches visited"


class QueueStorm(Storm):
    """Tasks in this process: twice, late, in any order, lost; workers that are gone; people; a site that goes on."""

    def __init__(self, chance: random.Random, db_alias: str) -> None:
        super().__init__(chance, db_alias)
        self.settings = {**SETTINGS, "MASSMIGRATION_BACKEND": "tests.faults.queues.ListBackend"}

    def rage(self) -> None:
        """Deliver badly, while the site goes on on a connection of its own."""
        executor.start(api.get_migration(self.key), self.db_alias, AUTHOR)
        in_threads(self._deliver_badly, self._be_busy)

    def _be_busy(self) -> None:
        for _ in range(self.chance.randint(1, 4)):
            time.sleep(self.chance.uniform(0, 0.02))
            self.note(self.site.act())

    def _deliver_badly(self) -> None:
        chance = random.Random(self.chance.random())
        deeds = (self._deliver, self._deliver, self._deliver_twice, self._deliver_late, self._lose, self._vanish)
        for _ in range(chance.randint(4, 14)):
            if not ListBackend.waiting:
                self.find_way_out()
            if not ListBackend.waiting:
                return
            number = chance.randrange(len(ListBackend.waiting))
            if number:
                self.made["task delivered late and out of order"] += 1
            chance.choice(deeds)(chance, ListBackend.waiting.pop(number))
            if chance.random() < 0.08:
                self.pause()
            check_numbers(self.key, self.db_alias)

    def _deliver(self, chance: random.Random, task: tuple[str, str]) -> None:
        self.note(f"deliver {task}")
        ListBackend.deliver(task)

    def _deliver_twice(self, chance: random.Random, task: tuple[str, str]) -> None:
        self._deliver(chance, task)
        self._deliver(chance, task)
        self.made["task delivered twice"] += 1

    def _deliver_late(self, chance: random.Random, task: tuple[str, str]) -> None:
        self._deliver(chance, task)
        self._deliver(chance, chance.choice(ListBackend.delivered))
        self.made["task delivered late and out of order"] += 1

    def _lose(self, chance: random.Random, task: tuple[str, str]) -> None:
        self.note(f"lose {task}")
        self.made["task lost"] += 1

    def _vanish(self, chance: random.Random, task: tuple[str, str]) -> None:
        name = chance.choice(traps.PLACES)
        calls = chance.randint(1, 4 if name else 200)
        if traps.vanish_after(calls, lambda: ListBackend.deliver(task), name):
            self.note(f"gone after {calls} calls of {name or 'anything'} in {task}")
            self.made["worker gone between two steps, lease left behind"] += 1
            connections[self.db_alias].close()

    def go_on(self) -> None:
        """Deliver as one should, and no watch, which would come back for ever."""
        tasks = [task for task in ListBackend.waiting if task[0].endswith("run_shard")]
        ListBackend.waiting.clear()
        if not tasks:
            time.sleep(0.05)  # a lease has to run out
        while tasks:
            self._deliver(self.chance, tasks.pop(0))
            tasks += [task for task in ListBackend.waiting if task[0].endswith("run_shard")]
            ListBackend.waiting.clear()


class KillStorm(Storm):
    """Processes that are killed, at any moment and in any step, while the site goes on."""

    options: dict[str, Any] = {}

    def __init__(self, chance: random.Random, db_alias: str, nursery: Nursery) -> None:
        super().__init__(chance, db_alias)
        self._nursery = nursery
        self.has_queue = chance.random() < 0.5
        self.settings = ON_QUEUE if self.has_queue else SETTINGS
        self.children: list[Child] = []

    def start_child(self, **options: Any) -> Child:
        """Begin to work, or go on."""
        options = {"settings": self.settings, **self.options, **options}
        if not self.has_queue:
            child = self._nursery.start("massmigrate", self.key, self.db_alias, **options)
        elif self.get_status() == states.NOT_RUN:
            child = self._nursery.start("start", self.key, self.db_alias, **options)
            child.wait()
        else:
            child = self._nursery.start("deliver", 5, **options)
        self.children.append(child)
        return child

    def rage(self) -> None:
        """Kill and go on, some times."""
        deeds = (self._kill_one, self._kill_one, self._kill_in_step, self._act, self._act, self.pause)
        for _ in range(self.chance.randint(3, 6)):
            if self.get_status() == states.APPLIED:
                return
            if sum(child.poll() is None for child in self.children) < 2:
                self.start_child()
            time.sleep(self.chance.uniform(0, 0.05))
            self.chance.choice(deeds)()
            check_numbers(self.key, self.db_alias)

    def _act(self) -> None:
        self.note(self.site.act())

    def _kill_one(self) -> None:
        alive = [child for child in self.children if child.poll() is None]
        if alive:
            child = self.chance.choice(alive)
            child.kill()
            self.note(f"kill {child.pid}")
            self.made["kill of a worker at a random moment"] += child.wait() < 0

    def _kill_in_step(self) -> None:
        step = self.chance.choice((*STEPS, *COMMITS))
        self.note(f"kill in {step.name}")
        self.start_child(step=step.name, at=self.chance.randint(1, 3))

    def go_on(self) -> None:
        """Have one child do the rest."""
        child = self.start_child()
        child.wait()
        if child.tell():
            self.note(child.tell())

    def settle(self) -> None:
        """End all children, and read what they said."""
        for child in self.children:
            child.kill()
            self.made["kill of a worker at a random moment"] += child.wait() < 0 and not child.met
            if child.tell():
                self.note(child.tell())
        self.children.clear()

    def end(self) -> None:
        """Leave no child behind."""
        for child in self.children:
            child.kill()
            child.wait()
