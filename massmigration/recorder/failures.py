"""Writes failures."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connections

from massmigration.database import is_document_store
from massmigration.models import MigrationFailure
from massmigration.recorder.conditional import DOCUMENT_LIMIT, update_if
from massmigration.redaction import clean, redact


def keep_failure(failure: MigrationFailure, db_alias: str) -> None:
    """Store a failure; one of the same object in the same attempt is replaced. Its key is JSON, which needs no care."""
    for name in ("object_repr", "error_class", "message", "traceback"):
        setattr(failure, name, clean(getattr(failure, name)))
    failure.message = redact(failure.message)
    failure.object_repr, failure.error_class = failure.object_repr[:255], failure.error_class[:255]
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
    if is_document_store(db_alias) and connections[db_alias].in_atomic_block:  # where some may have been written
        return sum(failure.status == MigrationFailure.OPEN for failure in failures)
    return failures.filter(status=MigrationFailure.OPEN).count()


def mark_failures_retried(failures: Sequence[MigrationFailure], db_alias: str) -> None:
    """Close open failures, because what failed is tried again.

    Args:
        failures: Of one attempt.
        db_alias: The database.
    """
    ids = [failure.pk for failure in failures]
    for start in range(0, len(ids), DOCUMENT_LIMIT):
        rows = MigrationFailure.objects.using(db_alias).filter(pk__in=ids[start : start + DOCUMENT_LIMIT])
        update_if(rows, {"status": MigrationFailure.OPEN}, {"status": MigrationFailure.RETRIED})
