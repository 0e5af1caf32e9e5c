"""Takes one migration on one database to its end, as far as this command may, and says how it ended."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, connections

from massmigration import api, states, wording, worker
from massmigration.api import Progress
from massmigration.databases.redaction import describe
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import IllegalMove, MassMigrationError
from massmigration.management import exits, plan, report
from massmigration.management.display import Display
from massmigration.management.interrupts import Interrupts
from massmigration.management.work import Work, poll


@dataclass(kw_only=True)
class Runner:
    """Runs migrations for one command.

    Attributes:
        display: Where progress is shown.
        interrupts: What the command has been asked by signals.
        style: Django's colours.
        actor: Who does it, for the audit trail.
        workers: How many processes work.
        waits: Whether to stay until the end.
    """

    display: Display
    interrupts: Interrupts
    style: Any
    actor: str | None
    workers: int
    waits: bool

    def say(self, *lines: str) -> None:
        """Write lines that stay."""
        for line in lines:
            self.display.say(line)

    def run(self, key: str, db_alias: str, action: str) -> int:
        """Launch a migration by an action that makes it run, or ``plan.JOIN``; stay, and return its exit code.

        Raises:
            MassMigrationError: It cannot be launched.
        """
        migration = api.get_migration(key)
        is_local = not worker.works_elsewhere(migration)
        works_here = is_local and self.waits
        count = self._get_worker_count(migration, db_alias) if works_here else 1
        if self.workers > 1 and not is_local:
            self.say(f"{key}: its workers are those of its backend, so --workers has no effect.")
        if action != plan.JOIN and states.ACTIONS[action].makes_attempt and migration.operator_notes:
            self.say(f"{key}: {migration.operator_notes}")
        self._launch(migration, db_alias, action, enqueue=not works_here)
        if not self.waits:
            self.say(*report.describe_launch(api.get_progress(key, db_alias), self.style))
            return exits.APPLIED
        began_at = time.monotonic()
        self.interrupts.is_final = False
        work = Work(migration, db_alias, self.display, self.interrupts, self.actor) if works_here else None
        try:
            if work is None:
                self._watch_over(migration, db_alias)
            else:
                self.interrupts.on_interrupt = self.display.announce_stop
                work.work_with_children(count) if count > 1 else work.work()
            self.interrupts.is_final = True
        except KeyboardInterrupt:  # the second Ctrl-C; a transaction in hand is rolled back with its connection
            self.interrupts.is_final = True
            self.interrupts.is_interrupted = True
            connections[db_alias].close()
        finally:
            self.display.end()
        if self.interrupts.is_interrupted:  # from here on a first Ctrl-C only prevents what comes next
            if work is not None:
                work.pause()
            self.say(*report.describe_interrupt(api.get_progress(key, db_alias), self.style))
            return exits.INTERRUPTED
        return self._tell_outcome(key, db_alias, time.monotonic() - began_at)

    def work_at_attempt(self, key: str, db_alias: str, attempt_uuid: uuid.UUID) -> int:
        """Work at one attempt only, as worker processes do; change nothing if it is not the record's."""
        migration = api.get_migration(key)
        record = api.get_record(key, db_alias)
        if record is None or record.attempt_uuid != attempt_uuid or record.status not in states.ACTIVE:
            self.say(f"Attempt {attempt_uuid} of {key} is over on database '{db_alias}', so there is nothing to do.")
            return exits.APPLIED
        Work(migration, db_alias, self.display, self.interrupts, self.actor).work_at_attempt(attempt_uuid)
        self.display.end()
        return self._tell_outcome(key, db_alias)

    def watch(self, key: str, db_alias: str) -> int:
        """Show a migration until it ends, change nothing, and return the exit code for how it ended."""

        def look(progress: Progress) -> None:
            note = ""
            if progress.stalled:
                command = wording.make_command("massmigration recover", key, db_alias)
                note = f"{wording.Run.of(progress).trouble}; continue with: {command}"
            self.display.show(progress, note)

        try:
            poll(key, db_alias, self.interrupts, look)
        except KeyboardInterrupt:
            self.interrupts.is_interrupted = True
        finally:
            self.display.end()
        if self.interrupts.should_stop():
            return exits.INTERRUPTED if self.interrupts.is_interrupted else exits.TERMINATED
        return self.tell_end(key, db_alias)

    def tell_end(self, key: str, db_alias: str, seconds: float | None = None) -> int:
        """Say how a migration ended and return the exit code for it; this command took part for ``seconds``."""
        progress = api.get_progress(key, db_alias)
        self.say(*report.describe_end(progress, self.style, seconds))
        return exits.of_status(progress.status)

    def _launch(self, migration: BaseMigration, db_alias: str, action: str, *, enqueue: bool) -> None:
        """Do the action; if another person or process was faster and it is running already, join it."""
        if action == plan.JOIN:
            if not api.get_progress(migration, db_alias).stalled:
                return
            action = "recover"
        try:
            api.ACTIONS[action](migration, db_alias, actor=self.actor, origin="command", enqueue=enqueue)
        except IllegalMove:
            if action == "restart" or api.get_progress(migration, db_alias).status not in states.ACTIVE:
                raise
        except (DatabaseError, MassMigrationError):
            raise
        except Exception as error:  # an author's get_queryset() or before_start() may raise anything
            raise MassMigrationError(
                f"{migration.key} was not started on database '{db_alias}': {describe(error)}",
                key=migration.key,
                db_alias=db_alias,
            ) from error

    def _get_worker_count(self, migration: BaseMigration, db_alias: str) -> int:
        """Return how many of the wanted workers can be of use, and say so if they are fewer."""
        count, why = worker.limit_workers(migration, db_alias, self.workers)
        if why:
            self.say(f"{migration.key}: {why}; using {wording.count(count, 'workers')}.")
        return count

    def _watch_over(self, migration: BaseMigration, db_alias: str) -> None:
        """Watch a backend's workers, and recover what they abandoned."""

        def look(progress: Progress) -> None:
            if progress.stalled:
                self._launch(migration, db_alias, "recover", enqueue=True)
            self.display.show(progress)

        poll(migration.key, db_alias, self.interrupts, look)

    def _tell_outcome(self, key: str, db_alias: str, seconds: float | None = None) -> int:
        if not self.interrupts.is_terminated:
            return self.tell_end(key, db_alias, seconds)
        self.say(*report.describe_termination(api.get_progress(key, db_alias), self.style))
        return exits.TERMINATED
