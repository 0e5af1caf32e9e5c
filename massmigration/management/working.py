"""Works one migration off with this process or with its children, and pauses it if nobody else works on it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from contextlib import suppress

from django.db import DatabaseError, InterfaceError, connections

from massmigration import api, states, wording, worker
from massmigration.api import Progress
from massmigration.backends.local import make_worker_command
from massmigration.backends.logfiles import make_log_path
from massmigration.databases.redaction import describe, get_message
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import IllegalMove, MassMigrationError
from massmigration.management import exits
from massmigration.management.display import Display
from massmigration.management.interrupts import Interrupts
from massmigration.management.presence import get_others, get_wait_note, has_own
from massmigration.management.watching import POLL_SECONDS, poll
from massmigration.management.workers import WorkerPool


class Work:
    """One migration on one database, worked off on this machine.

    Args:
        migration: The definition.
        db_alias: The database.
        display: Where progress is shown.
        interrupts: What the command has been asked by signals.
        actor: Who pauses it on a Ctrl-C, for the audit trail.
    """

    def __init__(
        self, migration: BaseMigration, db_alias: str, display: Display, interrupts: Interrupts, actor: str | None
    ) -> None:
        self._migration = migration
        self._db_alias = db_alias
        self._display = display
        self._interrupts = interrupts
        self._actor = actor
        self._unit = wording.get_unit(migration)
        self._looked_at = 0.0
        self._has_worked = False
        self._saw_others = False

    def work(self) -> None:
        """Work in this process until the migration ends; on at the new attempt if somebody began one meanwhile."""
        adopts = True
        while not self._interrupts.should_stop():
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
                self._migration,
                self._db_alias,
                attempt_uuid,
                should_stop=self._interrupts.should_stop,
                on_progress=self._look,
                adopts=adopts,
            )
        except (DatabaseError, InterfaceError) as error:
            command = wording.make_command("massmigrate", self._migration.key, self._db_alias)
            raise MassMigrationError(
                f"Database '{self._db_alias}' failed while {self._migration.key} was worked on: "
                f"{get_message(error)}. Nothing is "
                f"lost; go on with: {command}",
                key=self._migration.key,
                db_alias=self._db_alias,
            ) from error
        except BaseException as error:
            is_ours = isinstance(error, KeyboardInterrupt) and self._interrupts.is_interrupted
            if isinstance(error, Exception) or is_ours:
                raise
            command = wording.make_command("massmigrate", self._migration.key, self._db_alias)
            raise exits.break_off(
                f"{self._migration.key} was broken off on database '{self._db_alias}' by {describe(error)}, raised in "
                f"its own code or by a signal handler of the site. The batch in hand was rolled back. To continue: "
                f"{command}"
            ) from error

    def work_with_children(self, count: int) -> None:
        """Have child processes work until the migration ends, and see to it that they end with this command.

        Args:
            count: How many.

        Raises:
            BackendUnreachable: They cannot be started, or keep dying.
        """
        attempt_uuid = self._find_attempt()
        if attempt_uuid is None:
            return
        command = make_worker_command(self._migration.key, self._db_alias, attempt_uuid)
        log_path = make_log_path(self._migration.key, attempt_uuid)
        pool = WorkerPool(command, count, log_path, self._display.say)

        def look(progress: Progress) -> None:
            if progress.attempt_uuid == str(attempt_uuid):
                takeovers = sum(shard.takeovers or 0 for shard in progress.shard_rows)
                pool.tend((progress.processed, progress.failed, takeovers))
            self._note_workers(progress, pool.pids)
            self._display.show(progress, self._unit)

        try:
            pool.start()
            poll(self._migration.key, self._db_alias, self._interrupts, look)
            if self._interrupts.is_interrupted and not self.pause(pool.pids):
                pool.ask_to_stop()
            pool.wait(should_hurry=lambda: self._interrupts.is_terminated)
        except KeyboardInterrupt:  # the second Ctrl-C
            pool.kill()
            connections[self._db_alias].close()  # it may have been in the middle of a question
            self.pause(pool.pids)
            raise
        except BaseException:
            pool.ask_to_stop()
            raise
        finally:
            pool.wait()

    def pause(self, child_pids: Collection[int] = ()) -> bool:
        """Pause the migration, unless others work on it.

        Args:
            child_pids: Processes that count as this one.

        Returns:
            Whether it is at work no more.
        """
        progress = api.get_progress(self._migration, self._db_alias)
        if progress.status not in states.ACTIVE:
            return True
        if get_others(progress, child_pids) or (self._saw_others and not self._has_worked):
            return False
        with suppress(IllegalMove):  # it has just ended
            api.pause_migration(self._migration, self._db_alias, actor=self._actor, origin="command")
        return True

    def _find_attempt(self) -> uuid.UUID | None:
        record = api.get_record(self._migration, self._db_alias)
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
            progress = api.get_progress(self._migration, self._db_alias)
            self._note_workers(progress, ())
            if progress.status in states.ACTIVE:
                note = "" if has_own(progress) else get_wait_note(progress)
                self._display.show(progress, self._unit, note)

    def _note_workers(self, progress: Progress, child_pids: Collection[int]) -> None:
        self._has_worked = self._has_worked or has_own(progress, child_pids)
        self._saw_others = bool(get_others(progress, child_pids))
