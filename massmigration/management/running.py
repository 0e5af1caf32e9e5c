"""Takes one migration on one database to its end, as far as this process may, and says how it ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections

from massmigration import api, states, tasks
from massmigration.api import Progress
from massmigration.backends.base import get_backend
from massmigration.backends.local import check_second_process, make_log_path, make_worker_command
from massmigration.definitions.base import BaseMigration
from massmigration.engine.leases import get_max_workers
from massmigration.exceptions import IllegalMove, MassMigrationError
from massmigration.loader import get_loader
from massmigration.management import exits, plan, report, wording
from massmigration.management.display import Display
from massmigration.management.interrupts import Interrupts
from massmigration.management.presence import get_others, get_wait_note, has_own
from massmigration.management.workers import WorkerPool

POLL_SECONDS: Final = 0.5
DATABASE_PATIENCE_SECONDS: Final = 60.0
"""For how long watching goes on while the database does not answer."""

_LAUNCHES: Final[dict[str, Callable[..., Any]]] = {
    plan.START: api.start_migration,
    plan.RESTART: api.restart_migration,
    plan.RESUME: api.resume_migration,
    plan.RETRY: api.retry_migration,
    plan.RECOVER: api.recover_migration,
}


class Runner:
    """Runs migrations for one command.

    Args:
        display: Where progress is shown.
        interrupts: What the command has been asked by signals.
        style: Django's colours.
        actor: Who does it, for the audit trail.
        workers: How many processes work.
        waits: Whether to stay until the end.
    """

    def __init__(
        self,
        display: Display,
        interrupts: Interrupts,
        style: Any,
        *,
        actor: str | None = None,
        workers: int = 1,
        waits: bool = True,
    ) -> None:
        self._display = display
        self._interrupts = interrupts
        self._style = style
        self._actor = actor
        self._workers = workers
        self._waits = waits
        self._looked_at = 0.0
        self._has_worked = False
        self._saw_others = False

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._display.say(line)

    def run(self, key: str, db_alias: str, action: str) -> int:
        """Launch or join a migration, see it to its end, and return the exit code for it.

        Args:
            key: The migration.
            db_alias: The database.
            action: ``start``, ``restart``, ``resume``, ``retry``, ``recover`` or ``join``.

        Raises:
            MassMigrationError: It cannot be launched.
        """
        migration = api.get_migration(key)
        is_local = not get_backend(migration).has_workers
        self._has_worked = self._saw_others = False
        self._looked_at = 0.0
        if self._waits and is_local and self._workers > 1:
            self._check_workers(migration, db_alias)
        if action in (plan.START, plan.RESTART) and migration.operator_notes:
            self._display.say(f"{key}: {migration.operator_notes}")
        self._launch(migration, db_alias, action, enqueue=not (is_local and self._waits))
        if not self._waits:
            return self._say_goodbye(migration, db_alias)
        began_at = time.monotonic()
        if is_local:
            self._interrupts.on_interrupt = self._display.announce_stop
        try:
            if not is_local:
                self._watch(migration, db_alias)
            elif self._get_worker_count(migration, db_alias) > 1:
                self._work_with_children(migration, db_alias)
            else:
                self._work(migration, db_alias)
        except KeyboardInterrupt:  # the second Ctrl-C; a transaction in hand is rolled back with its connection
            self._interrupts.is_interrupted = True
            connections[db_alias].close()
        finally:
            self._display.end()
        if self._interrupts.is_interrupted:
            return self._interrupt(migration, db_alias, may_pause=is_local)
        if self._interrupts.is_terminated:
            return self._terminate(key, db_alias)
        return self.tell_end(key, db_alias, seconds=time.monotonic() - began_at)

    def work_at_attempt(self, key: str, db_alias: str, attempt_uuid: uuid.UUID) -> int:
        """Work at one attempt only, as worker processes do; change nothing if it is not the record's."""
        migration = api.get_migration(key)
        record = api.get_record(key, db_alias)
        if record is None or record.attempt_uuid != attempt_uuid or record.status not in states.ACTIVE:
            self._display.say(
                f"Attempt {attempt_uuid} of {key} is not to be worked on any more on database '{db_alias}'."
            )
            return exits.APPLIED
        self._work_once(migration, db_alias, attempt_uuid)
        self._display.end()
        if self._interrupts.is_terminated:
            return self._terminate(key, db_alias)
        return self.tell_end(key, db_alias)

    def watch(self, key: str, db_alias: str) -> int:
        """Show a migration until it ends, change nothing, and return the exit code for how it ended."""
        unit = wording.get_unit(get_loader().migrations.get(key))
        try:
            self._poll(key, db_alias, lambda progress: self._display.show(progress, unit, _get_way_out(progress)))
        except KeyboardInterrupt:
            self._interrupts.is_interrupted = True
        finally:
            self._display.end()
        if self._interrupts.should_stop():
            return exits.INTERRUPTED if self._interrupts.is_interrupted else exits.TERMINATED
        return self.tell_end(key, db_alias)

    def tell_end(self, key: str, db_alias: str, seconds: float | None = None) -> int:
        """Say how a migration ended and return the exit code for it."""
        progress = api.get_progress(key, db_alias)
        for line in report.describe_end(progress, self._style, seconds):
            self._display.say(line)
        return exits.of_status(progress.status)

    def _launch(self, migration: BaseMigration, db_alias: str, action: str, *, enqueue: bool) -> None:
        """Make the move; if somebody else was quicker and it is at work already, join it."""
        if action == plan.JOIN:
            if not api.get_progress(migration, db_alias).stalled:
                return
            action = plan.RECOVER
        try:
            _LAUNCHES[action](migration, db_alias, actor=self._actor, origin="command", enqueue=enqueue)
        except IllegalMove:
            if action == plan.RESTART or api.get_progress(migration, db_alias).status not in states.ACTIVE:
                raise
        except (DatabaseError, MassMigrationError):
            raise
        except Exception as error:  # an author's get_queryset() or before_start() may raise anything
            raise MassMigrationError(
                f"{migration.key} was not started on database '{db_alias}': {type(error).__name__}: {error}",
                key=migration.key,
                db_alias=db_alias,
            ) from error

    def _say_goodbye(self, migration: BaseMigration, db_alias: str) -> int:
        progress = api.get_progress(migration, db_alias)
        for line in report.describe_launch(progress, self._style):
            self._display.say(line)
        return exits.APPLIED

    def _check_workers(self, migration: BaseMigration, db_alias: str) -> None:
        check_second_process(db_alias)
        count = self._get_worker_count(migration, db_alias)
        if count == self._workers:
            return
        if connections[db_alias].vendor == "sqlite":
            why = "SQLite lets one process write at a time"
        else:
            why = "it is serial" if migration.serial else f"its max_workers is {count}"
        self._display.say(f"{migration.key}: {why}, so {count} worker{'s' if count > 1 else ''} will do.")

    def _get_worker_count(self, migration: BaseMigration, db_alias: str) -> int:
        bound = get_max_workers(migration, db_alias)
        return self._workers if bound is None else max(1, min(self._workers, bound))

    def _work(self, migration: BaseMigration, db_alias: str) -> None:
        """Work in this process; once more if somebody began a new attempt meanwhile."""
        while not self._interrupts.should_stop():
            record = api.get_record(migration, db_alias)
            if record is None or record.status not in states.ACTIVE or record.attempt_uuid is None:
                return
            self._work_once(migration, db_alias, record.attempt_uuid)

    def _work_once(self, migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID) -> None:
        self._look(migration, db_alias)
        try:
            tasks.work(
                migration,
                db_alias,
                attempt_uuid,
                should_stop=self._interrupts.should_stop,
                on_progress=lambda: self._look(migration, db_alias),
            )
        except (DatabaseError, InterfaceError) as error:
            raise MassMigrationError(
                f"Database '{db_alias}' failed while {migration.key} was worked on: {error}. Nothing is lost: go on "
                f"with {wording.make_command('massmigrate', migration.key, db_alias)}",
                key=migration.key,
                db_alias=db_alias,
            ) from error

    def _look(self, migration: BaseMigration, db_alias: str) -> None:
        """Show where it stands, twice a second at most; called by the engine, so it never raises an error."""
        now = time.monotonic()
        if now - self._looked_at < POLL_SECONDS:
            return
        self._looked_at = now
        try:
            progress = api.get_progress(migration, db_alias)
            self._note_workers(progress, set())
            note = get_wait_note(progress) if not has_own(progress) else ""
            if progress.status in states.ACTIVE:
                self._display.show(progress, wording.get_unit(migration), note)
        except (DatabaseError, InterfaceError, OSError):
            return

    def _note_workers(self, progress: Progress, child_pids: set[int]) -> None:
        self._has_worked = self._has_worked or has_own(progress, child_pids)
        self._saw_others = bool(get_others(progress, child_pids))

    def _watch(self, migration: BaseMigration, db_alias: str) -> None:
        """Watch a backend's workers, and hand on what they abandoned."""
        unit = wording.get_unit(migration)

        def look(progress: Progress) -> None:
            if progress.stalled:
                self._launch(migration, db_alias, plan.RECOVER, enqueue=True)
            self._display.show(progress, unit)

        self._poll(migration.key, db_alias, look)

    def _poll(self, key: str, db_alias: str, look: Callable[[Progress], None]) -> None:
        answered_at = time.monotonic()
        while not self._interrupts.should_stop():
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

    def _work_with_children(self, migration: BaseMigration, db_alias: str) -> None:
        record = api.get_record(migration, db_alias)
        if record is None or record.attempt_uuid is None:
            return
        attempt_uuid = record.attempt_uuid
        pool = WorkerPool(
            make_worker_command(migration.key, db_alias, attempt_uuid),
            self._get_worker_count(migration, db_alias),
            make_log_path(migration.key, attempt_uuid),
            self._display.say,
        )
        unit = wording.get_unit(migration)

        def look(progress: Progress) -> None:
            if progress.attempt_uuid == str(attempt_uuid):
                pool.tend(progress.processed or 0)
            self._note_workers(progress, pool.pids)
            self._display.show(progress, unit)

        try:
            pool.start()
            self._poll(migration.key, db_alias, look)
            if self._interrupts.is_interrupted and not self._pause(migration, db_alias, pool.pids):
                pool.ask_to_stop()
            if self._interrupts.is_terminated:
                pool.ask_to_stop()
            pool.wait(should_hurry=lambda: self._interrupts.is_terminated)
        except KeyboardInterrupt:
            pool.kill()
            self._pause(migration, db_alias, pool.pids)
            raise
        except BaseException:
            pool.ask_to_stop()
            raise
        finally:
            pool.wait()

    def _interrupt(self, migration: BaseMigration, db_alias: str, *, may_pause: bool) -> int:
        if may_pause:
            self._pause(migration, db_alias, set())
        progress = api.get_progress(migration, db_alias)
        for line in report.describe_interrupt(progress, self._style):
            self._display.say(line)
        return exits.INTERRUPTED

    def _pause(self, migration: BaseMigration, db_alias: str, child_pids: set[int]) -> bool:
        """Pause what only we work on; return whether nothing is left to do for our workers."""
        progress = api.get_progress(migration, db_alias)
        if progress.status not in states.ACTIVE:
            return True
        if get_others(progress, child_pids) or (self._saw_others and not self._has_worked):
            return False
        with suppress(IllegalMove):  # it has just ended
            api.pause_migration(migration, db_alias, actor=self._actor, origin="command")
        return True

    def _terminate(self, key: str, db_alias: str) -> int:
        progress = api.get_progress(key, db_alias)
        if progress.status in states.ACTIVE:
            self._display.say(
                f"{wording.name_target(key, db_alias)} stays {states.LABELS[progress.status]}; the next one goes on "
                f"from the cursors: {wording.make_command('massmigrate', key, db_alias)}"
            )
        else:
            self.tell_end(key, db_alias)
        return exits.TERMINATED


def _get_way_out(progress: Progress) -> str:
    if not progress.stalled:
        return ""
    trouble = wording.describe_trouble(progress)
    command = wording.make_command("massmigration recover", progress.key, progress.database)
    return f"{trouble}; go on with: {command}"
