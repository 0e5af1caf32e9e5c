"""What SQLite does otherwise: one connection writes at a time, and a statement has a limited number of parameters."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.models import AutoField, DecimalField, IntegerField, Model, QuerySet

from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.keys import KeyCodec, get_target
from massmigration.databases.sql import SqlDatabase
from massmigration.databases.writeback import Rows, is_understood_by_us, write_listed
from massmigration.exceptions import InvalidDefinition

DECIMAL_DIGITS: Final = 15
"""SQLite keeps decimals as floating point: more digits come back changed (https://www.sqlite.org/datatype3.html)."""


class Database(SqlDatabase):
    """SQLite, in a file or in memory."""

    has_single_writer = True
    orders_uuids = True
    max_parameters = 32766  # SQLITE_MAX_VARIABLE_NUMBER of 3.32 and newer: https://www.sqlite.org/limits.html

    @property
    def is_in_memory(self) -> bool:
        """Does the database live in this process's memory, so that no other process can see it?"""
        return bool(self.connection.is_in_memory_db())

    def is_transient(self, error: BaseException) -> bool:
        """Return whether another connection is writing, or ours was closed."""
        if isinstance(error, InterfaceError):  # sqlite3's, up to Python 3.10, is about a value that it cannot store
            return error.__cause__ is None
        return self.is_contention(error) or super().is_transient(error)

    def is_contention(self, error: BaseException) -> bool:
        """Return whether SQLite refused a write because another connection is writing."""
        return isinstance(error, OperationalError) and bool(re.search(r"database( \w+)? is locked", str(error)))

    def is_timed_out(self, error: BaseException) -> bool:
        """Return whether a statement was interrupted."""
        return isinstance(error, OperationalError) and "interrupted" in str(error)

    @contextmanager
    def begin_writing(self, atomic: AbstractContextManager[None]) -> Iterator[None]:
        """Begin it IMMEDIATE.

        One that reads first and writes later fails at once in WAL mode when another connection wrote in between,
        whatever the time-out is (https://www.sqlite.org/isolation.html).
        """
        connection = self.connection
        connection.ensure_connection()
        mode = connection.transaction_mode
        connection.transaction_mode = "IMMEDIATE"
        try:
            with atomic:
                yield
        finally:
            connection.transaction_mode = mode

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Interrupt a statement within the block that takes longer."""
        self.connection.ensure_connection()
        timer = threading.Timer(seconds, self.connection.connection.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def estimate(self, queryset: QuerySet[Any]) -> int | None:
        """Subtract the first row number from the last."""
        if not _has_row_numbers(queryset.model):
            return None
        table = self.connection.ops.quote_name(queryset.model._meta.db_table)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f"SELECT max(rowid) - min(rowid) + 1 FROM {table}")
                row: tuple[int | None] = cursor.fetchone()
                return row[0]
        except DatabaseError:
            return None

    def check_key(self, codec: KeyCodec) -> None:
        """Raise InvalidDefinition if SQLite does not give a model's keys back exactly."""
        super().check_key(codec)
        for field in map(get_target, get_key_fields(codec.model)):
            if isinstance(field, DecimalField) and (field.max_digits or 99) > DECIMAL_DIGITS:
                raise InvalidDefinition(
                    f"The primary key of {codec.model._meta.label} has {field.max_digits} decimal digits, but SQLite "
                    f"keeps only {DECIMAL_DIGITS} exactly. Use a CustomMigration, or another database."
                )

    def data_version(self) -> Any:
        """Return a number that changes as soon as another connection commits, together with the connection it is of.

        https://www.sqlite.org/pragma.html#pragma_data_version
        """
        self.connection.ensure_connection()
        raw = self.connection.connection
        return raw, raw.execute("PRAGMA data_version").fetchone()[0]

    def write_rows(self, rows: Rows) -> None:
        """Send a list of rows, if the engine understands their fields; UPDATE … FROM came with SQLite 3.33."""
        if sqlite3.sqlite_version_info >= (3, 33) and is_understood_by_us(rows):
            write_listed(rows, rows.prepare(), size=self.max_parameters // len(rows.columns))
        else:
            super().write_rows(rows)


def _has_row_numbers(model: type[Model]) -> bool:
    """Return whether SQLite numbers the rows; integer keys that are given by hand take the numbers' place."""
    key = get_target(model._meta.pk)
    return isinstance(key, AutoField) or not isinstance(key, IntegerField)
