"""How a write transaction begins, and which errors of a database pass by themselves."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from massmigration.exceptions import DatabaseLocked

Result = TypeVar("Result")

LOCK_PATIENCE_SECONDS: Final = 30.0
"""For how long a short write of ours is repeated while another process holds SQLite's only write lock."""

DOCUMENT_PATIENCE_SECONDS: Final = 90.0
"""The same on document stores: Firestore keeps the locks of a client that died in a transaction for a minute."""

_TRANSIENT_SQLSTATES: Final = frozenset({"25P03", "40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
# https://www.postgresql.org/docs/current/errcodes-appendix.html: idled for too long, serialization failure, deadlock,
# lock not available, and the three ways in which a server says good-bye. Class 08 is "connection exception".
_TRANSIENT_GOOGLE_ERRORS: Final = frozenset(
    {"Aborted", "DeadlineExceeded", "InternalServerError", "ResourceExhausted", "RetryError", "ServiceUnavailable"}
)
# Classes of google.api_core.exceptions; https://cloud.google.com/datastore/docs/concepts/errors tells what to repeat.
_ROLLED_BACK_SQLSTATES: Final = frozenset({"40001", "40P01"})
_NOT_AVAILABLE: Final = "55P03"
_CANCELLED: Final = "57014"

_LONGEST_IDLING_MS: Final = 2**31 - 1
"""PostgreSQL's settings are integers of 32 bits: 24 days."""


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite refused a write because another connection is writing."""
    return isinstance(error, OperationalError) and re.search(r"database( \w+)? is locked", str(error)) is not None


def is_transient(error: BaseException) -> bool:
    """Return whether a database's error says that the same work may succeed a moment later."""
    if isinstance(error, InterfaceError):  # sqlite3's, up to Python 3.10, is about a value that it cannot store
        return type(error.__cause__).__module__ != "sqlite3"
    if isinstance(error, DatabaseLocked) or is_locked(error) or _is_from_google(error, _TRANSIENT_GOOGLE_ERRORS):
        return True
    if not isinstance(error, OperationalError):
        return False
    sqlstate = _get_sqlstate(error)
    if sqlstate is None:  # psycopg has no code for a connection that was cut off
        return type(error.__cause__).__module__.startswith("psycopg")
    return sqlstate in _TRANSIENT_SQLSTATES or sqlstate.startswith("08")


def _is_from_google(error: BaseException, names: Collection[str]) -> bool:
    """Look for Datastore's and Firestore's errors, which come bare, or as the cause of one of Django's."""
    for candidate in (error, error.__cause__):
        for base in type(candidate).__mro__:
            if base.__module__ == "google.api_core.exceptions" and base.__name__ in names:
                return True
    return False


def is_contention(error: BaseException) -> bool:
    """Return whether a transaction was rolled back because of another one, so that it may be repeated as it was."""
    is_rolled_back = _get_sqlstate(error) in _ROLLED_BACK_SQLSTATES
    return is_locked(error) or is_rolled_back or _is_from_google(error, {"Aborted"})


def is_timed_out(error: BaseException) -> bool:
    """Return whether PostgreSQL gave a statement up, for ``statement_timeout`` or because a person cancelled it.

    Nobody knows whether it took long by itself or waited for a lock, so this says nothing of the next try.
    """
    return isinstance(error, OperationalError) and _get_sqlstate(error) == _CANCELLED


def _get_sqlstate(error: BaseException) -> str | None:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the database lives in this process's memory, so that no other process can see it."""
    if connection.vendor != "sqlite":
        return False
    return bool(connection.is_in_memory_db())  # type: ignore[attr-defined]


def is_document_store(db_alias: str) -> bool:
    """Return whether django-gcloud-connectors stand behind the alias: Datastore or Firestore, which know no SQL."""
    return any(base.__module__.startswith("gcloudc.") for base in type(connections[db_alias]).__mro__)


def has_row_locks(db_alias: str) -> bool:
    """Return whether rows can be locked with SELECT … FOR UPDATE."""
    return bool(connections[db_alias].features.has_select_for_update) and not is_document_store(db_alias)


@contextmanager
def write_transaction(db_alias: str) -> Iterator[None]:
    """Open a transaction that is going to write.

    On SQLite it begins IMMEDIATE: a transaction that reads first and writes later fails at once in WAL mode when
    somebody else wrote in between, whatever the time-out (https://www.sqlite.org/isolation.html).

    On PostgreSQL it is READ COMMITTED, whatever level the site has chosen: with one snapshot for the whole transaction,
    the last statement of a batch would fail as soon as the heartbeat had renewed the lease in the same row.

    Within a transaction that is open already, such as the one around an author's test, both are left as they are.

    Args:
        db_alias: The database.
    """
    connection = connections[db_alias]
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        with _read_committed(connection), transaction.atomic(using=db_alias):
            _set_read_committed(connection)
            yield
        return
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(using=db_alias):
            yield
        return
    connection.ensure_connection()
    mode = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]
    try:
        with transaction.atomic(using=db_alias):
            yield
    finally:
        connection.transaction_mode = mode  # type: ignore[attr-defined]


@contextmanager
def _read_committed(connection: Any) -> Iterator[None]:
    """Have psycopg begin the block's transaction with its level, which costs no statement."""
    connection.ensure_connection()
    raw = connection.connection
    if not _is_psycopg3(connection) or not raw.autocommit:
        yield
        return
    before, raw.isolation_level = raw.isolation_level, connection.Database.IsolationLevel.READ_COMMITTED
    try:
        yield
    finally:
        if not raw.closed:
            raw.isolation_level = before


def _set_read_committed(connection: BaseDatabaseWrapper) -> None:
    """Set the level with a statement; for psycopg2, which would send one to set it and another to set it back."""
    if not _is_psycopg3(connection):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def _is_psycopg3(connection: Any) -> bool:
    return bool(connection.Database.__name__ == "psycopg")


def limit_idling(db_alias: str, seconds: float) -> None:
    """Let PostgreSQL end this transaction, and free its locks, if its client does nothing for so long.

    https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT

    Args:
        db_alias: The database; on others than PostgreSQL nothing is done.
        seconds: How long it may idle.
    """
    connection = connections[db_alias]
    if connection.vendor == "postgresql" and connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [f"{min(seconds * 1000, _LONGEST_IDLING_MS):.0f}ms"],
            )


def run_write(db_alias: str, write: Callable[[], Result], *, patience: float | None = None) -> Result:
    """Call ``write`` in a write transaction, again while other writers are in the way.

    Args:
        db_alias: The database.
        write: Does the writing; it may be called more than once, each time after a roll back.
        patience: For how many seconds to repeat; None for as long as the database's locks may last.

    Returns:
        What ``write`` returned.

    Raises:
        DatabaseLocked: Another process kept the lock all the time.
    """
    if patience is None:
        patience = DOCUMENT_PATIENCE_SECONDS if is_document_store(db_alias) else LOCK_PATIENCE_SECONDS
    deadline = time.monotonic() + patience
    delay, longest_delay = 0.05, 2.0 if is_document_store(db_alias) else 0.05
    while True:
        try:
            with write_transaction(db_alias):
                return write()
        except Exception as error:
            is_in_the_way = is_contention(error) or is_timed_out(error) or _get_sqlstate(error) == _NOT_AVAILABLE
            if not is_in_the_way or connections[db_alias].in_atomic_block:
                raise
            if time.monotonic() > deadline:
                raise DatabaseLocked(
                    f"Database '{db_alias}' was kept locked by another writer for {patience:g} seconds, so nothing was "
                    "changed. Try again when its transaction has ended.",
                    db_alias=db_alias,
                ) from error
        time.sleep(random.uniform(delay / 10, delay))
        delay = min(delay * 1.5, longest_delay)
