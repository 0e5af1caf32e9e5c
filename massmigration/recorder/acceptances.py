"""Closes failures that a person accepts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from massmigration.databases.transactions import has_row_locks
from massmigration.models import MigrationFailure, MigrationRecord
from massmigration.recorder.conditional import DOCUMENT_LIMIT, update_if
from massmigration.recorder.failures import FailureFilter, select_failures


def lock_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, which nobody else moves until the transaction ends.

    On SQLite a write transaction keeps all others out anyway; on a document store one of two commits fails.
    """
    records = MigrationRecord.objects.using(db_alias).filter(pk=key)
    return (records.select_for_update() if has_row_locks(db_alias) else records).first()


def is_accepted(failure: MigrationFailure, db_alias: str) -> bool:
    """Return whether a person has taken this very object as it is, in the same attempt."""
    stored = MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).first()
    return stored is not None and stored.status == MigrationFailure.ACCEPTED


def mark_failures_accepted(failures: Sequence[MigrationFailure], db_alias: str) -> int:
    """Close open failures, because their objects stay as they are; return how many were open still.

    Args:
        failures: Of one attempt; at most ``DOCUMENT_LIMIT`` on a document store.
        db_alias: The database.
    """
    ids, count = [failure.pk for failure in failures], 0
    for start in range(0, len(ids), DOCUMENT_LIMIT):
        rows = MigrationFailure.objects.using(db_alias).filter(pk__in=ids[start : start + DOCUMENT_LIMIT])
        accepted = {"status": MigrationFailure.ACCEPTED, "is_passed": True}
        count += update_if(rows, {"status": MigrationFailure.OPEN}, accepted)
    return count


def mark_selected_accepted(attempt_uuid: uuid.UUID | None, db_alias: str, wanted: FailureFilter) -> int:
    """Close the failures that are meant in one statement, and return how many they were; for SQL databases only."""
    rows = select_failures(attempt_uuid, db_alias, wanted)
    return rows.update(status=MigrationFailure.ACCEPTED, is_passed=True)
