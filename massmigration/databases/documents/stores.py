"""Datastore and Firestore, which django-gcloud-connectors make look like databases of Django."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import InterfaceError, transaction
from django.db.models import Field, Model, QuerySet

from massmigration.databases.documents.errors import is_google_error, is_transient_at_google
from massmigration.databases.documents.ranges import StoreRanges
from massmigration.databases.locking import list_keys
from massmigration.databases.ranges import KeyRange
from massmigration.databases.redaction import get_message
from massmigration.databases.writeback import list_rows, write_singly
from massmigration.exceptions import DatabaseLocked, InvalidDefinition

_LOOKUPS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "": operator.eq,
    "in": lambda stored, expected: stored in expected,
    "lt": lambda stored, expected: stored is not None and stored < expected,
}


class Database(StoreRanges):
    """A document store: no joins, no savepoints, no reading after writing, and an index for each question."""

    write_limit = 400  # the connectors refuse more than 500
    write_interval = 1.0  # https://cloud.google.com/datastore/docs/concepts/limits
    lock_seconds = 90.0  # Firestore keeps the locks of a client that died in a transaction for a minute
    longest_wait_seconds = 2.0
    reads_block_writes = True
    can_read_own_writes = False
    can_operate_in_transaction = False
    has_savepoints = False
    has_free_filters = False  # each index is paid for with every write
    has_aggregates = False
    reads_whole_rows = True  # fewer fields cost another index
    can_skip_rows = False  # a filter is answered from an index, and what an OFFSET leaves out is paid for
    listed_keys_limit = 1

    def is_transient(self, error: BaseException) -> bool:
        """Return whether the store says that the same work may succeed a moment later."""
        is_lost = isinstance(error, InterfaceError) and error.__cause__ is None
        return is_lost or isinstance(error, DatabaseLocked) or is_transient_at_google(error)

    def is_contention(self, error: BaseException) -> bool:
        """Return whether a transaction was rolled back because of another one, so that it may be repeated as it was."""
        return is_google_error(error, {"Aborted"})

    def update_if(self, rows: QuerySet[Any], expected: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
        """Read the rows and compare them, since a query may look at indexed fields only."""
        with transaction.atomic(using=self.alias):
            chosen = _choose(rows, expected)
            for row in chosen:
                QuerySet(type(row), using=self.alias).filter(pk=row.pk).update(**fields)
        return len(chosen)

    def delete_if(self, rows: QuerySet[Any], expected: Mapping[str, Any]) -> int:
        """Read the rows and compare them, as ``update_if`` does."""
        with transaction.atomic(using=self.alias):
            chosen = _choose(rows, expected)
            for row in chosen:
                row.delete(using=self.alias)
        return len(chosen)

    def insert_missing(self, objects: Sequence[Model]) -> None:
        """Look which of the keys exist, and store the others."""
        if not objects:
            return
        rows: QuerySet[Any] = QuerySet(type(objects[0]), using=self.alias)
        stored = {row.pk for row in rows.filter(pk__in=[new.pk for new in objects])}
        rows.bulk_create([new for new in objects if new.pk not in stored])

    def has_table(self, name: str) -> bool:
        """Return True: a table comes into being with its first row."""
        return True

    def check_readable(self, queryset: QuerySet[Any], key: str) -> None:
        """Raise InvalidDefinition if the queryset needs an index that the store does not have."""
        try:
            for first in list_keys(queryset.order_by("pk")[:1]):
                list_keys(KeyRange(first, None).narrow(queryset).order_by("pk")[:1])
        except Exception as error:
            if self.is_transient(error):
                raise
            raise InvalidDefinition(
                f"The queryset of {key} cannot be read in the order of its keys on database '{self.alias}': "
                f"{get_message(error)}. "
                "Filter for equal values of indexed fields only, and leave the rest to the operation.",
                key=key,
                db_alias=self.alias,
            ) from error

    def write_objects(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
        """Write object by object; the store gets them together when the transaction is committed."""
        for rows in list_rows(objects, fields, self.connection):
            write_singly(rows)


def _choose(rows: QuerySet[Any], expected: Mapping[str, Any]) -> list[Model]:
    return [row for row in rows if all(_matches(row, *condition) for condition in expected.items())]


def _matches(row: Model, lookup: str, expected: Any) -> bool:
    name, _, comparison = lookup.partition("__")
    return _LOOKUPS[comparison](getattr(row, name), expected)
