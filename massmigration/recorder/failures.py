"""Writes failures, and reads them a page at a time: a run may have a hundred thousand, each with a traceback."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db.models import Count, Max, Q, QuerySet

from massmigration.databases.redaction import clean, redact
from massmigration.databases.registry import get_database
from massmigration.models import MigrationFailure

PAGE: Final = 1_000
"""Failures without their tracebacks that are in memory at once."""

_CLOSED: Final[dict[str, dict[str, Any]]] = {
    MigrationFailure.RETRIED: {"status": MigrationFailure.RETRIED},
    MigrationFailure.ACCEPTED: {"status": MigrationFailure.ACCEPTED, "is_passed": True},
}

LOOKED_AT: Final = 5
"""A whole operation has a failure or two; all others are those of objects."""


class FailureFilter(NamedTuple):
    """Which failures of an attempt are meant.

    Attributes:
        status: Only those with this status.
        of_objects: Only those of an object, and not of a whole operation.
        until: Only those that failed no later.
        ids: Only those with these primary keys.
    """

    status: str | None = None
    of_objects: bool = False
    until: datetime | None = None
    ids: Collection[str] | None = None

    def matches(self, failure: MigrationFailure) -> bool:
        """Return whether a failure is meant."""
        return (
            (self.status is None or failure.status == self.status)
            and (not self.of_objects or failure.object_key is not None)
            and (self.until is None or failure.failed_at <= self.until)
            and (self.ids is None or failure.pk in self.ids)
        )

    def as_lookups(self) -> dict[str, Any]:
        """Return the same for ``QuerySet.filter()`` on SQL."""
        lookups = {"status": self.status, "failed_at__lte": self.until, "pk__in": self.ids}
        found = {name: value for name, value in lookups.items() if value is not None}
        return {**found, "object_key__isnull": False} if self.of_objects else found


EVERY: Final = FailureFilter()
OPEN: Final = FailureFilter(MigrationFailure.OPEN)
ACCEPTABLE: Final = FailureFilter(MigrationFailure.OPEN, of_objects=True)
ACCEPTED: Final = FailureFilter(MigrationFailure.ACCEPTED)


class FailureCounts(NamedTuple):
    """How many failures an attempt has.

    Attributes:
        total: All.
        open: Those that are neither retried nor accepted.
        acceptable: Open ones of objects; on a document store a few are looked at, and this is the least.
    """

    total: int = 0
    open: int = 0
    acceptable: int = 0


def keep_failure(failure: MigrationFailure, db_alias: str) -> None:
    """Store a failure; one of the same object in the same attempt is replaced. Its key is JSON, which needs no care."""
    for name in ("object_repr", "error_class", "message", "traceback"):
        setattr(failure, name, clean(getattr(failure, name)))
    failure.message = redact(failure.message)
    failure.object_repr, failure.error_class = failure.object_repr[:255], failure.error_class[:255]
    failure.save(using=db_alias)


def select_failures(
    attempt_uuid: uuid.UUID | None, db_alias: str, wanted: FailureFilter = EVERY
) -> QuerySet[MigrationFailure]:
    """Return the failures of an attempt that are meant, as a queryset; only where the database ``has_free_filters``."""
    rows = MigrationFailure.objects.using(db_alias).filter(**wanted.as_lookups())
    return rows.none() if attempt_uuid is None else rows.filter(attempt_uuid=attempt_uuid)


def get_failures(
    attempt_uuid: uuid.UUID | None,
    db_alias: str,
    wanted: FailureFilter = EVERY,
    *,
    limit: int | None = None,
    offset: int = 0,
    with_tracebacks: bool = True,
) -> list[MigrationFailure]:
    """Return failures of an attempt, oldest first; on a document store each page is sorted by itself.

    Args:
        attempt_uuid: The attempt; without one there are none.
        db_alias: The database.
        wanted: Which of them.
        limit: At most this number; None for all, which may be very many.
        offset: Leave out this number.
        with_tracebacks: Whether tracebacks are read, too; without them, on SQL, one is read when it is asked for.
    """
    if attempt_uuid is None:
        return []
    end = None if limit is None else offset + limit
    database = get_database(db_alias)
    if database.has_free_filters:
        rows = select_failures(attempt_uuid, db_alias, wanted).order_by("failed_at", "pk")
        return list((rows if with_tracebacks else rows.defer("traceback"))[offset:end])
    rows = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    is_simple = wanted == FailureFilter(wanted.status)
    if limit is not None and is_simple and not database.connection.in_atomic_block:
        rows = rows if wanted.status is None else rows.filter(status=wanted.status)
        return sorted(rows.order_by("pk")[offset:end], key=lambda failure: failure.failed_at)
    found = sorted(filter(wanted.matches, rows), key=lambda failure: failure.failed_at)
    return found[offset:end]


def iterate_failures(
    attempt_uuid: uuid.UUID | None,
    db_alias: str,
    wanted: FailureFilter = EVERY,
    *,
    limit: int | None = None,
    with_tracebacks: bool = False,
) -> Iterator[MigrationFailure]:
    """Go through failures of an attempt, oldest first, in one query on SQL, with few of them in memory.

    On a document store all that are meant are read at once. Arguments are those of ``get_failures``.
    """
    if not get_database(db_alias).has_free_filters:
        yield from get_failures(attempt_uuid, db_alias, wanted, limit=limit)
        return
    rows = select_failures(attempt_uuid, db_alias, wanted).order_by("failed_at", "pk")[:limit]
    rows = rows if with_tracebacks else rows.defer("traceback")
    yield from rows.iterator(chunk_size=PAGE // 10 if with_tracebacks else PAGE)


def count_failures(attempt_uuid: uuid.UUID | None, db_alias: str) -> FailureCounts:
    """Return how many failures an attempt has; one query on SQL."""
    if attempt_uuid is None:
        return FailureCounts()
    if get_database(db_alias).has_aggregates:
        return count_failures_of([attempt_uuid], db_alias).get(attempt_uuid, FailureCounts())
    rows = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    first = rows.filter(status=MigrationFailure.OPEN).order_by("pk")[:LOOKED_AT]
    acceptable = sum(failure.object_key is not None for failure in first)
    return FailureCounts(rows.count(), count_open_failures(attempt_uuid, db_alias), acceptable)


def count_failures_of(attempt_uuids: Sequence[uuid.UUID], db_alias: str) -> dict[uuid.UUID, FailureCounts]:
    """Return how many failures several attempts have, in one query; only where the database ``has_aggregates``."""
    is_open = Q(status=MigrationFailure.OPEN)
    rows = MigrationFailure.objects.using(db_alias).filter(attempt_uuid__in=attempt_uuids).order_by()
    counts = rows.values("attempt_uuid").annotate(
        total=Count("pk"),
        open=Count("pk", filter=is_open),
        acceptable=Count("pk", filter=is_open & Q(object_key__isnull=False)),
    )
    return {row["attempt_uuid"]: FailureCounts(row["total"], row["open"], row["acceptable"]) for row in counts}


def find_last_failed_at(attempt_uuid: uuid.UUID | None, db_alias: str, wanted: FailureFilter) -> datetime | None:
    """Return when the last of the failures that are meant failed; None if there is none."""
    if not get_database(db_alias).has_aggregates:
        return max((each.failed_at for each in get_failures(attempt_uuid, db_alias, wanted)), default=None)
    found: datetime | None = select_failures(attempt_uuid, db_alias, wanted).aggregate(last=Max("failed_at"))["last"]
    return found


def count_open_failures(attempt_uuid: uuid.UUID | None, db_alias: str) -> int:
    """Return how many failures of an attempt are neither retried nor accepted."""
    return count_by_status(attempt_uuid, db_alias, MigrationFailure.OPEN)


def count_by_status(attempt_uuid: uuid.UUID | None, db_alias: str, status: str) -> int:
    """Return how many failures of an attempt have this status."""
    if attempt_uuid is None:
        return 0
    failures = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    database = get_database(db_alias)
    if not database.can_read_own_writes and database.connection.in_atomic_block:  # some may have been written there
        return sum(failure.status == status for failure in failures)
    return failures.filter(status=status).count()


def is_accepted(failure: MigrationFailure, db_alias: str) -> bool:
    """Return whether a person has accepted the failure of this very object in the same attempt."""
    stored = MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).first()
    return stored is not None and stored.status == MigrationFailure.ACCEPTED


def close_failures(failures: Sequence[MigrationFailure], db_alias: str, status: str) -> int:
    """Mark those of some failures that are open as retried or accepted, and return how many they were.

    Args:
        failures: Of one attempt.
        db_alias: The database.
        status: ``MigrationFailure.RETRIED`` or ``ACCEPTED``, after which the cursor is past the object.
    """
    database, count = get_database(db_alias), 0
    for ids in database.page_writes([failure.pk for failure in failures]):
        rows = MigrationFailure.objects.using(db_alias).filter(pk__in=ids)
        count += database.update_if(rows, {"status": MigrationFailure.OPEN}, _CLOSED[status])
    return count


def close_selected(attempt_uuid: uuid.UUID | None, db_alias: str, status: str, wanted: FailureFilter = OPEN) -> int:
    """Close the failures that are meant, and return how many they were; only where ``write_limit`` is None."""
    return select_failures(attempt_uuid, db_alias, wanted).update(**_CLOSED[status])
