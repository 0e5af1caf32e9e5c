"""Runs one migration in this process or its children, and pauses it unless another worker is working on it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError, connections

from massmigration import api, states, wording, worker
from massmigration.api import Progress, ShardProgress
from massmigration.databases.redaction import describe, get_message
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import IllegalMove, MassMigrationError
from massmigration.management.display import Display
from massmigration.management.interrupts import Interrupts
from massmigration.management.pool import WorkerPool

POLL_SECONDS: Final = 0.5
DATABASE_PATIENCE_SECONDS: Final = 60.0
"""For how long watching continues while the database does not answer."""


@dataclass
class Work:
    """One migration on one database, run on this machine.

    Attributes:
        migration: The definition.
        db_alias: The database.
        display: Where progress is shown.
        interrupts: What the command has been asked by signals.
        actor: Who pauses it on a Ctrl-C, for the audit trail.
    """

    migration: BaseMigration
    db_alias: str
    display: Display
    interrupts: Interrupts
    actor: str | None
    _looked_at: float = field(default=0.0, init=False)
    _has_worked: bool = field(default=False, init=False)
    _saw_others: bool = field(default=False, init=False)

    def work(self) -> None:
        """Work in this process until the migration ends; if a person starts it again meanwhile, at the new attempt."""
        adopts = True
        while not self.interrupts.should_stop():
            attempt_uuid = self._find_attempt()
            if attempt_uuid is None:
                return
            self.work_at_attempt(attempt_uuid, adopts=adopts)
            adopts = False

    def work_at_attempt(self, attempt_uuid: uuid.UUID, *, adopts: bool = True) -> None:
        """Work in this process until the attempt ends.

        Args:
            attempt_uuid: The attempt.
            adopts: Whether this process has just started, so that its version of the file is the one to work with.

        Raises:
            MassMigrationError: The database failed.
            CommandError: Something that is no Exception, such as SystemExit, was raised while it worked.
        """
        self._look()
        try:
            worker.work(
                self.migration,
                self.db_alias,
                attempt_uuid,
                should_stop=self.interrupts.should_stop,
                on_progress=self._look,
                adopts=adopts,
            )
        except (DatabaseError, InterfaceError) as error:
            raise MassMigrationError(
                f"Database '{self.db_alias}' failed while {self.migration.key} was running: {get_message(error)}. "
                f"Nothing is lost. {self._to_continue()}",
                key=self.migration.key,
                db_alias=self.db_alias,
            ) from error
        except BaseException as error:
            is_ours = isinstance(error, KeyboardInterrupt) and self.interrupts.is_interrupted
            if isinstance(error, Exception) or is_ours:
                raise
            raise CommandError(
                f"{self.migration.key} was broken off on database '{self.db_alias}' by {describe(error)}, raised in "
                f"its own code or by a signal handler of the site. The batch in hand was rolled back. "
                f"{self._to_continue()}"
            ) from error

    def work_with_children(self, count: int) -> None:
        """Have ``count`` child processes work until the migration ends, and make sure that they end with this command.

        Raises:
            BackendUnreachable: They cannot be started, or keep dying.
        """
        attempt_uuid = self._find_attempt()
        if attempt_uuid is None:
            return
        command, log_path = worker.make_child(self.migration.key, self.db_alias, attempt_uuid)
        pool = WorkerPool(command, count, log_path, self.display.say)

        def look(progress: Progress) -> None:
            if progress.attempt_uuid == str(attempt_uuid):
                takeovers = sum(shard.takeovers or 0 for shard in progress.shard_rows)
                pool.tend((progress.processed, progress.failed, takeovers))
            self._learn_workers(progress, pool.pids)
            self.display.show(progress)

        try:
            pool.start()
            poll(self.migration.key, self.db_alias, self.interrupts, look)
            if self.interrupts.is_interrupted and not self.pause(pool.pids):
                pool.ask_to_stop()
            pool.wait(should_hurry=lambda: self.interrupts.is_terminated)
        except KeyboardInterrupt:  # the second Ctrl-C
            pool.kill()
            connections[self.db_alias].close()  # it may have been in the middle of a query
            self.pause(pool.pids)
            raise
        except BaseException:
            pool.ask_to_stop()
            raise
        finally:
            pool.wait()

    def pause(self, child_pids: Collection[int] = ()) -> bool:
        """Pause the migration, unless workers other than this process and its children are working on it.

        Returns:
            Whether it is not running any more.
        """
        progress = api.get_progress(self.migration, self.db_alias)
        if progress.status not in states.ACTIVE:
            return True
        if _get_others(progress, child_pids) or (self._saw_others and not self._has_worked):
            return False
        with suppress(IllegalMove):  # it has just ended
            api.pause_migration(self.migration, self.db_alias, actor=self.actor, origin="command")
        return True

    def _find_attempt(self) -> uuid.UUID | None:
        record = api.get_record(self.migration, self.db_alias)
        return record.attempt_uuid if record is not None and record.status in states.ACTIVE else None

    def _look(self) -> None:
        """Show where it stands, twice a second at most.

        The engine calls this between batches, where an error would count as the migration's: so none gets out.
        """
        now = time.monotonic()
        if now - self._looked_at < POLL_SECONDS:
            return
        self._looked_at = now
        with suppress(Exception):
            progress = api.get_progress(self.migration, self.db_alias)
            self._learn_workers(progress, ())
            if progress.status in states.ACTIVE:
                self.display.show(progress, "" if _has_own(progress, ()) else _describe_wait(progress))

    def _learn_workers(self, progress: Progress, child_pids: Collection[int]) -> None:
        self._has_worked = self._has_worked or _has_own(progress, child_pids)
        self._saw_others = bool(_get_others(progress, child_pids))

    def _to_continue(self) -> str:
        return f"To continue: {wording.make_command('massmigrate', self.migration.key, self.db_alias)}"


def poll(key: str, db_alias: str, interrupts: Interrupts, look: Callable[[Progress], None]) -> None:
    """Call ``look`` with the progress twice a second, until the migration is not running or the command is to stop.

    A connection that broke is opened again.
    """
    answered_at = time.monotonic()
    while not interrupts.should_stop():
        try:
            progress = api.get_progress(key, db_alias)
            if progress.status not in states.ACTIVE:
                return
            look(progress)
            answered_at = time.monotonic()
        except (DatabaseError, InterfaceError):
            if time.monotonic() - answered_at > DATABASE_PATIENCE_SECONDS:
                raise
            connections[db_alias].close()
        time.sleep(POLL_SECONDS)


def _has_own(progress: Progress, child_pids: Iterable[int]) -> bool:
    """Return whether this process or one of its children holds a shard."""
    return any(shard.is_live and worker.is_own(shard.worker, child_pids) for shard in progress.shard_rows)


def _get_others(progress: Progress, child_pids: Iterable[int]) -> list[ShardProgress]:
    """Return the shards that other workers hold."""
    return [shard for shard in progress.shard_rows if shard.is_live and not worker.is_own(shard.worker, child_pids)]


def _describe_wait(progress: Progress) -> str:
    """Return what a worker without work waits for: the others' leases, if nothing else is to be done."""
    others = _get_others(progress, ())
    expiries = [shard.lease_expires_at for shard in others if shard.lease_expires_at is not None]
    if not expiries:
        return ""
    workers = sorted({shard.worker.rpartition(":")[0] for shard in others})
    who = f"{workers[0]} is" if len(workers) == 1 else f"{wording.count(len(workers), 'workers')} are"
    return (
        f"{who} working on it; if a worker is gone, its key range is taken over when its lease runs out, at "
        f"{wording.format_moment(min(expiries))}"
    )
