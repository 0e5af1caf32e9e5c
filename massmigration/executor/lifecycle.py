"""What ``BaseMigration`` offers to a hand-written ``launch()``."""

from __future__ import annotations

from django.utils import timezone

from massmigration import logs, recorder, states
from massmigration.databases.redaction import describe
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration, launching_attempt
from massmigration.executor.moves import Move
from massmigration.executor.readiness import check_dependencies
from massmigration.models import MigrationRecord
from massmigration.recorder import Author


class RecordLifecycle:
    """What ``BaseMigration`` offers to a hand-written ``launch()``."""

    def mark_as_started(self, migration: BaseMigration, db_alias: str) -> None:
        """Move the record to RUNNING, if it is not yet."""
        author = _get_launch_author(migration)
        attempt_uuid = launching_attempt.get()
        run_write(db_alias, lambda: recorder.move(migration.key, db_alias, "begin", author, of_attempt=attempt_uuid))

    def mark_as_finished(self, migration: BaseMigration, db_alias: str) -> None:
        """Move the record to APPLIED."""
        self.mark_as_started(migration, db_alias)

        def keep(record: MigrationRecord) -> None:
            if record.attempt_uuid is not None:
                recorder.update_attempt(record.attempt_uuid, db_alias, finished_at=timezone.now())

        move = Move("finish", migration.key, db_alias, _get_launch_author(migration))
        move.make(also=keep, of_attempt=launching_attempt.get())

    def mark_as_errored(self, migration: BaseMigration, db_alias: str, error: BaseException | str) -> None:
        """Move the record to FAILED and keep the error."""
        sentence = error if isinstance(error, str) else describe(error)
        cause = None if isinstance(error, str) else logs.Cause(error)
        attempt_uuid, reason = launching_attempt.get(), states.OPERATION_ERROR
        move = Move("fail", migration.key, db_alias, _get_launch_author(migration))
        move.make(of_attempt=attempt_uuid, detail=sentence, cause=cause, error=sentence, reason=reason)

    check_dependencies = staticmethod(check_dependencies)


def _get_launch_author(migration: BaseMigration) -> Author:
    return Author("launch()", "worker", sender=type(migration))
