"""What PostgreSQL does otherwise: its own clock, time-outs, statistics, samples, and arrays of new values."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from django.db import DatabaseError, NotSupportedError, OperationalError, ProgrammingError, transaction
from django.db.models import QuerySet

from massmigration.databases.columns import get_cast, has_plain_values, is_array
from massmigration.databases.counting import COUNT_SECONDS
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.keys import KeyCodec
from massmigration.databases.sql import SqlDatabase, get_state
from massmigration.databases.writeback import Rows, is_understood_by_us, write_listed, write_singly, write_unnested

CLOCK_SECONDS: Final = 300.0
"""How long a reading of the clock is good enough for pages and commands; a worker reads it for each slice."""

LONGEST_IDLING_MS: Final = 2**31 - 1
"""PostgreSQL's settings are integers of 32 bits: 24 days."""

TRUSTED_ROWS: Final = 50_000
"""Statistics of a fresh or small table are often far off, so a smaller number is counted."""

CANCELLED: Final = "57014"
NOT_AVAILABLE: Final = "55P03"


class Database(SqlDatabase):
    """PostgreSQL, with psycopg or psycopg2."""

    orders_uuids = True
    # https://www.postgresql.org/docs/current/errcodes-appendix.html: idled for too long, serialization failure,
    # deadlock, lock not available, and the three ways in which a server says goodbye.
    transient_states = frozenset({"25P03", "40001", "40P01", NOT_AVAILABLE, "57P01", "57P02", "57P03"})
    rolled_back_states = frozenset({"40001", "40P01"})

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        # What to add to time.monotonic() to have the seconds since 1970, and when that was found out.
        self._reading: tuple[float, float] | None = None

    def is_transient(self, error: BaseException) -> bool:
        """As on all SQL databases; psycopg has no SQLSTATE for a connection that was cut off."""
        if isinstance(error, OperationalError) and get_state(error) is None:
            return self.is_from_driver(error)
        return super().is_transient(error)

    def is_from_driver(self, error: BaseException) -> bool:
        """Return whether Django made the error from one of psycopg, or of its pool."""
        return type(error.__cause__).__module__.startswith("psycopg")

    def is_timed_out(self, error: BaseException) -> bool:
        """Return whether PostgreSQL gave a statement up, for ``statement_timeout`` or because a person cancelled it."""
        return isinstance(error, OperationalError) and get_state(error) == CANCELLED

    def is_in_the_way(self, error: BaseException) -> bool:
        """Return whether a short write failed because of other writers; ``lock_timeout`` may be set."""
        return super().is_in_the_way(error) or get_state(error) == NOT_AVAILABLE

    @contextmanager
    def begin_writing(self, atomic: AbstractContextManager[None]) -> Iterator[None]:
        """Begin it READ COMMITTED, whatever level the site has chosen.

        With one snapshot for the whole transaction, the last statement of a batch would fail as soon as the heartbeat
        had renewed the lease in the same row.
        """
        with self._read_committed(), atomic:
            if not self._has_psycopg3:  # psycopg2 would send a statement to set the level, and one to set it back
                with self.connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            yield

    @contextmanager
    def _read_committed(self) -> Iterator[None]:
        """Have psycopg begin the block's transaction with its level, which costs no statement."""
        self.connection.ensure_connection()
        raw = self.connection.connection
        if not self._has_psycopg3 or not raw.autocommit:
            yield
            return
        before, raw.isolation_level = raw.isolation_level, self.connection.Database.IsolationLevel.READ_COMMITTED
        try:
            yield
        finally:
            if not raw.closed:
                raw.isolation_level = before

    @property
    def _has_psycopg3(self) -> bool:
        return bool(self.connection.Database.__name__ == "psycopg")

    def limit_idling(self, seconds: float) -> None:
        """Let PostgreSQL end the open transaction, and free its locks, if its client does nothing for this long.

        https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT
        """
        if self.connection.in_atomic_block:
            self._set("idle_in_transaction_session_timeout", f"{min(seconds * 1000, LONGEST_IDLING_MS):.0f}ms")

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Set ``statement_timeout`` for the block, in a transaction or savepoint."""
        self.connection.ensure_connection()
        with transaction.atomic(using=self.alias):
            with self.connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                before = cursor.fetchone()[0]
            self._set("statement_timeout", f"{max(seconds * 1000, 1):.0f}ms")
            yield
            self._set("statement_timeout", before)

    def _set(self, name: str, value: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])

    def now(self) -> float:
        """Return the seconds since 1970 (UTC) by the server's clock."""
        if self._reading is None or time.monotonic() - self._reading[1] > CLOCK_SECONDS:
            self.read_clock()
        assert self._reading is not None
        return self._reading[0] + time.monotonic()

    def read_clock(self) -> None:
        """Compare the server's clock with ``time.monotonic()``."""
        asked_at = time.monotonic()
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp())")
            (seconds,) = cursor.fetchone()
        answered_at = time.monotonic()
        self._reading = float(seconds) - (asked_at + answered_at) / 2, answered_at

    def estimate(self, queryset: QuerySet[Any]) -> int | None:
        """Ask the planner, which knows the filter."""
        try:
            plan = json.loads(queryset.order_by().explain(format="json"))
            return int(plan[0]["Plan"]["Plan Rows"])
        except DatabaseError:
            return None

    def estimate_table(self, rows: QuerySet[Any]) -> int | None:
        """Believe the statistics of a large table, and count a small one."""
        estimate = self.estimate(rows)
        if estimate is None or estimate < TRUSTED_ROWS:
            return self.count(rows, COUNT_SECONDS / 4).number
        return estimate

    def sample_keys(self, rows: QuerySet[Any]) -> list[Any]:
        """Read the keys of a thousandth of the table's pages, which views and foreign tables do not have."""
        model, columns = rows.model, get_key_fields(rows.model)
        if len(columns) > 1 or not KeyCodec(model).is_plain:
            return []
        quote = self.connection.ops.quote_name
        pk = quote(columns[0].column or "")
        with (
            suppress(NotSupportedError, ProgrammingError),
            transaction.atomic(using=self.alias),
            self.connection.cursor() as cursor,
        ):
            cursor.execute(
                f"SELECT {pk} FROM {quote(model._meta.db_table)} TABLESAMPLE SYSTEM (0.1) ORDER BY {pk} LIMIT 100000"
            )
            return [columns[0].to_python(row[0]) for row in cursor.fetchall()]
        return []

    def write_rows(self, rows: Rows) -> None:
        """Send one array per column, twice as fast as a list of rows, if the engine understands the fields."""
        if not is_understood_by_us(rows):
            super().write_rows(rows)
            return
        values = rows.prepare()
        if not all(map(has_plain_values, rows.columns, values)):
            write_singly(rows)
        elif any(map(is_array, rows.fields)):  # which unnest would flatten
            write_listed(
                rows, values, size=len(rows.values), casts=[get_cast(f, rows.connection) for f in rows.columns]
            )
        else:
            write_unnested(rows, values)
