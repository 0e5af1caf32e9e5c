"""What SQL databases have in common, and all that is known of one without a module here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import InterfaceError, OperationalError
from django.db.models import Field, Model, QuerySet

from massmigration.databases import spreading
from massmigration.databases.base import BaseDatabase
from massmigration.databases.counting import COUNT_SECONDS, Count, count_distinct
from massmigration.databases.keys import KeyCodec
from massmigration.databases.ranges import KeyRange, find_last, get_all_rows
from massmigration.databases.writeback import Rows, list_rows, takes_cases, write_cases, write_singly
from massmigration.exceptions import DatabaseLocked

TRANSIENT_STATES: Final = frozenset({"40001"})
"""Serialization failure, in the standard's words; class 08 is "connection exception"."""


class SqlDatabase(BaseDatabase):
    """An SQL database; subclasses say what theirs does better, or otherwise."""

    # Are UUIDs in the order of their numbers? MariaDB orders its own type by the last bytes first:
    # https://mariadb.com/docs/server/reference/data-types/string-data-types/uuid-data-type
    orders_uuids: bool = False

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

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Let statements take as long as they do: not every database can be told to give up."""
        yield

    def count(self, queryset: QuerySet[Any], seconds: float = COUNT_SECONDS) -> Count:
        """Count the distinct rows of a queryset, or estimate them if that takes longer than ``seconds``."""
        try:
            with self.limit_time(seconds):
                return Count(count_distinct(queryset), is_estimate=False)
        except OperationalError as error:
            if not self.is_timed_out(error):
                raise
        return Count(self.estimate(queryset), is_estimate=True)

    def count_range(self, queryset: QuerySet[Any], keys: KeyRange, seconds: float) -> Count:
        """Count the rows of a queryset in a range of keys; arguments as for ``count``."""
        return self.count(keys.narrow(queryset), seconds)

    def estimate(self, queryset: QuerySet[Any]) -> int | None:
        """Return about how many rows a queryset has, without reading them; None if that is not known."""
        return None

    def estimate_table(self, rows: QuerySet[Any]) -> int | None:
        """Return about how many rows a table has; None if that is not known.

        Args:
            rows: All rows of the model.
        """
        return self.count(rows, COUNT_SECONDS / 4).number

    def computes(self, codec: KeyCodec) -> bool:
        """Return whether a range of a model's keys can be cut by arithmetic, in the order of this database."""
        return codec.can_compute and (codec.types[0].python_type is int or self.orders_uuids)

    def sample_keys(self, rows: QuerySet[Any]) -> list[Any]:
        """Return sorted keys picked at random out of a large table; none where that is not to be had."""
        return []

    def find_bounds(self, queryset: QuerySet[Any], most: int, rows_per_range: int | None) -> list[Any]:
        """Divide the whole table, whatever the queryset's filter is."""
        rows = get_all_rows(queryset)
        row_count = self.estimate_table(rows)
        if rows_per_range is not None and row_count is not None:
            most = max(1, min(most, row_count // rows_per_range))
        computes = self.computes(KeyCodec(rows.model))
        return spreading.find_bounds(rows, most, row_count, computes=computes, sample=self.sample_keys)

    def find_middle(
        self, queryset: QuerySet[Any], ranges: Sequence[KeyRange], least_rows: int
    ) -> tuple[int, Any] | None:
        """Cut the largest range of the whole table, whatever the queryset's filter is."""
        rows = get_all_rows(queryset)
        return spreading.find_middle(rows, ranges, least_rows, computes=self.computes(KeyCodec(rows.model)))

    def find_largest(self, queryset: QuerySet[Any], after: Any) -> tuple[bool, Any]:
        """Look at the whole table, whatever the queryset's filter is."""
        return True, find_last(get_all_rows(queryset), KeyRange(after, None))

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
