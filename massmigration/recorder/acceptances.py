"""Closes failures that a person accepts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from massmigration.databases.registry import get_database
from massmigration.models import MigrationFailure, MigrationRecord
from massmigration.recorder.conditional import update_if
from massmigration.recorder.failures import FailureFilter, select_failures


def lock_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, which no other process moves until the transaction ends.

    On SQLite a write transaction keeps all others out anyway; on a document store one of two commits fails.
    """
    records = MigrationRecord.objects.using(db_alias).filter(pk=key)
    return (records.select_for_update() if get_database(db_alias).has_row_locks else records).first()


def is_accepted(failure: MigrationFailure, db_alias: str) -> bool:
    """Return whether a person has taken this very object as it is, in the same attempt."""
    stored = MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).first()
    return stored is not None and stored.status == MigrationFailure.ACCEPTED


def mark_failures_accepted(failures: Sequence[MigrationFailure], db_alias: str) -> int:
    """Close open failures, because their objects stay as they are; return how many were open still.

    Args:
        failures: Of one attempt; no more than one transaction may write.
        db_alias: The database.
    """
    rows = MigrationFailure.objects.using(db_alias).filter(pk__in=[failure.pk for failure in failures])
    accepted = {"status": MigrationFailure.ACCEPTED, "is_passed": True}
    return update_if(rows, {"status": MigrationFailure.OPEN}, accepted)


def mark_selected_accepted(attempt_uuid: uuid.UUID | None, db_alias: str, wanted: FailureFilter) -> int:
    """Close the failures that are meant, and return how many they were; only where ``write_limit`` is None."""
    rows = select_failures(attempt_uuid, db_alias, wanted)
    return rows.update(status=MigrationFailure.ACCEPTED, is_passed=True)
