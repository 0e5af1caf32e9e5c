"""What SQL databases have in common, and all that is known of one without a module here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import InterfaceError, OperationalError
from django.db.models import Field, Model, QuerySet

from massmigration.databases.spreading import SqlRanges
from massmigration.databases.writeback import Rows, list_rows, takes_cases, write_cases, write_singly
from massmigration.exceptions import DatabaseLocked

TRANSIENT_STATES: Final = frozenset({"40001"})
"""Serialization failure, in the standard's words; class 08 is "connection exception"."""


class SqlDatabase(SqlRanges):
    """An SQL database; subclasses say what theirs does better, or otherwise."""

    # Which errors are transient, and which say that a transaction was rolled back for another one (SQLSTATE)?
    transient_states: frozenset[str] = TRANSIENT_STATES
    rolled_back_states: frozenset[str] = TRANSIENT_STATES

    @property
    def has_row_locks(self) -> bool:
        """Can rows be locked when they are read (SELECT … FOR UPDATE)?"""
        return bool(self.connection.features.has_select_for_update)

    def is_transient(self, error: BaseException) -> bool:
        """Return whether the connection was lost, another writer was in the way, or the server is not there yet."""
        if isinstance(error, InterfaceError):
            return error.__cause__ is None or self.is_from_driver(error)
        if isinstance(error, DatabaseLocked):
            return True
        state = get_state(error) if isinstance(error, OperationalError) else None
        return state is not None and (state in self.transient_states or state.startswith("08"))

    def is_contention(self, error: BaseException) -> bool:
        """Return whether a transaction was rolled back because of another one, so that it may be repeated as it was."""
        return get_state(error) in self.rolled_back_states

    def is_from_driver(self, error: BaseException) -> bool:
        """Return whether Django made the error from one of this database's driver."""
        return _get_package(type(error.__cause__).__module__) == _get_package(self.connection.Database.__name__)

    def update_if(self, rows: QuerySet[Any], expected: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
        """Set fields of those rows that are as expected, with one UPDATE."""
        return rows.filter(**expected).update(**fields)

    def delete_if(self, rows: QuerySet[Any], expected: Mapping[str, Any]) -> int:
        """Delete those rows that are as expected, with one DELETE."""
        return rows.filter(**expected).delete()[0]

    def insert_missing(self, objects: Sequence[Model]) -> None:
        """Store objects of one model; those whose keys exist already are left as they are."""
        if objects:
            rows: QuerySet[Any] = QuerySet(type(objects[0]), using=self.alias)
            rows.bulk_create(objects, ignore_conflicts=True)

    def write_objects(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
        """Write ``fields`` of the objects, if possible in one statement per table that holds some of them."""
        for rows in list_rows(objects, fields, self.connection):
            self.write_rows(rows)

    def write_rows(self, rows: Rows) -> None:
        """Write new values to one table, in the fastest way that does all that ``Model.save()`` does."""
        if takes_cases(rows):
            write_cases(rows)
        else:
            write_singly(rows)


def get_state(error: BaseException) -> str | None:
    """Return the SQLSTATE that a driver has given an error, if it has one."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def _get_package(module: str) -> str:
    return module.partition(".")[0].lstrip("_")
