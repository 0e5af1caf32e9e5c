"""Writes failures."""

from __future__ import annotations

import uuid

from massmigration.models import (
    MigrationFailure,
)


def keep_failure(failure: MigrationFailure, db_alias: str) -> None:
    """Store a failure; one of the same object in the same attempt is replaced."""
    failure.save(using=db_alias)


def get_failures(attempt_uuid: uuid.UUID | None, db_alias: str) -> list[MigrationFailure]:
    """Return the failures of an attempt, oldest first."""
    if attempt_uuid is None:
        return []
    failures = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    return sorted(failures, key=lambda failure: failure.failed_at)


def count_open_failures(attempt_uuid: uuid.UUID | None, db_alias: str) -> int:
    """Return how many failures of an attempt are neither retried nor accepted."""
    if attempt_uuid is None:
        return 0
    failures = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    return list(failures.values_list("status", flat=True)).count(MigrationFailure.OPEN)


def mark_failures_retried(attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Close the open failures of an attempt, because what failed is tried again."""
    MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid, status=MigrationFailure.OPEN).update(
        status=MigrationFailure.RETRIED
    )
