"""One migration whose processes die in a step, and the three ways in which it goes on without them."""

from __future__ import annotations

import signal
import time
from typing import Any

from massmigration import api, executor
from massmigration.recorder import Author
from tests.faults import steps, table
from tests.faults.invariants import check_end, check_numbers
from tests.faults.nursery import Child, Nursery
from tests.faults.queues import FolderBackend
from tests.faults.steps import QUEUE as QUEUED
from tests.faults.steps import Step

AUTHOR = Author("tester", "api")
SETTINGS = {
    "MASSMIGRATION_LEASE_SECONDS": 0.15,
    "MASSMIGRATION_WATCH_SECONDS": 0.1,
}
SHORT = {"MASSMIGRATION_SLICE_SECONDS": 0.001}
"""Each visit is one batch: the shard is handed back after it, and on a queue enqueued again."""

QUEUE = {"MASSMIGRATION_BACKEND": "tests.faults.queues.FolderBackend"}


class Victim:
    """One migration on one database, whose processes die.

    Args:
        nursery: Starts them.
        key: The migration's key.
        db_alias: The database.
        model: What is migrated.
        rows: How many of it there are.
        settings: Of the processes.
        repeats: So many visits may be made again after a death.
    """

    def __init__(
        self, nursery: Nursery, key: str, db_alias: str, model: Any, rows: int, settings: Any, *, repeats: int = 0
    ) -> None:
        self.nursery, self.key, self.db_alias = nursery, key, db_alias
        self._given = self._settings = settings
        self.has_queue = "MASSMIGRATION_BACKEND" in settings
        self.is_simple = key.endswith("_simple")
        self._rows = model.objects.using(db_alias)
        self._count = rows
        self._repeats = repeats

    def try_step(self, step: Step, way: str, at: int = 0) -> None:
        """Die in a step, look at what is left, heal, and look again.

        Args:
            step: In which.
            way: How it goes on, as for ``heal``.
            at: At which meeting of the step, if not at its own.
        """
        is_about_visits = step.transport == QUEUED or step.place.endswith(".release")
        self._settings = {**self._given, **(SHORT if is_about_visits else {})}
        self._begin_again()
        child = self._die(step, at)
        told = f"{step.name} ({self.key}, {self.db_alias}, {way}): {child.tell()}"
        assert (child.wait(), child.met) == (-signal.SIGKILL, step.name), f"not killed in {told}"
        left = self._look()
        assert step.left(left), f"{told} left {left}"
        counted = left.visits // self._count if self.is_simple else left.visits
        assert 0 <= counted - left.processed <= self._repeats, f"{told} left {left}"
        check_numbers(self.key, self.db_alias, visits=left.processed)
        self.heal("worker" if left.status == "not_run" else way)
        visits = list(self._rows.values_list("visits", flat=True))
        assert min(visits) >= 1, f"a row is lost: {told}"
        assert sum(visits) - self._count <= self._repeats, f"rows were visited again: {visits}, {told}"
        check_end(self.key, self.db_alias, visits=1 if self.is_simple else self._count)
        table.count(table.name_kill(step.name), self.db_alias)

    def _begin_again(self) -> None:
        """Forget what was before."""
        if api.get_record(self.key, self.db_alias) is not None:
            executor.reset(self.key, self.db_alias, AUTHOR)
        self._rows.all().update(visits=0, flag=False)
        FolderBackend.empty()

    def _run(self, job: str, *arguments: Any, step: Step | None = None, at: int = 0) -> Child:
        return self.nursery.run(job, *arguments, step=step.name if step else "", at=at, settings=self._settings)

    def _run_well(self, job: str, *arguments: Any) -> None:
        child = self._run(job, *arguments)
        assert child.wait() == 0, child.tell()

    def _die(self, step: Step, at: int) -> Child:
        """Go as far as the step."""
        if not self.has_queue:
            return self._run("massmigrate", self.key, self.db_alias, step=step, at=at)
        if step.process == "start":
            return self._run("start", self.key, self.db_alias, step=step, at=at)
        self._run_well("start", self.key, self.db_alias)
        return self._run("deliver", step=step, at=at)

    def _look(self) -> steps.Left:
        visits = sum(self._rows.values_list("visits", flat=True))
        return steps.look(self.key, self.db_alias, visits, len(FolderBackend.get_waiting()))

    def heal(self, way: str) -> None:
        """Have the run go on without the dead; each way finds the dead worker's shards alone.

        Args:
            way: ``"worker"``: another worker of the attempt comes along. ``"watch"``: the queue has the tasks that it
                had. ``"recover"``: the queue is empty, and ``massmigration recover`` runs as from cron.
        """
        if api.migration_is_applied(self.key, self.db_alias):
            return
        if way == "recover":
            FolderBackend.empty()
            self._wait_until_stalled()
            no_wait = ("--no-wait",) if self.has_queue else ()
            self._run_well("command", "massmigration", "recover", self.key, f"--database={self.db_alias}", *no_wait)
        elif not self.has_queue:
            self._run_well("massmigrate", self.key, self.db_alias)
        elif api.get_record(self.key, self.db_alias) is None:
            self._run_well("start", self.key, self.db_alias)
        if self.has_queue:
            self._run_well("deliver")

    def _wait_until_stalled(self) -> None:
        deadline = time.monotonic() + 30
        while not api.get_progress(self.key, self.db_alias).stalled:
            assert time.monotonic() < deadline
            time.sleep(0.02)
