"""How many rows there are: counted exactly when that is quick, else estimated and said to be so."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, IntegerField, Model, QuerySet

from massmigration.databases.documents.ranges import count_stored
from massmigration.databases.transactions import is_document_store, is_timed_out

COUNT_SECONDS: Final = 1.0
"""A count that takes longer is given up."""


class Count(NamedTuple):
    """A number of rows; None if it is not known."""

    number: int | None
    is_estimate: bool


def count_rows(queryset: QuerySet[Any], seconds: float = COUNT_SECONDS) -> Count:
    """Count the distinct rows of a queryset, or estimate them if that takes longer than ``seconds``.

    On Datastore and Firestore, where counting costs by the row, at most a thousand rows are counted, and ``seconds`` is
    not looked at: the number of queries is bounded instead.

    Args:
        queryset: A queryset of model instances.
        seconds: When to give up.
    """
    if is_document_store(queryset.db):
        return Count(*count_stored(queryset))
    connection = connections[queryset.db]
    try:
        with _time_limit(connection, seconds):
            if len(queryset.query.alias_map) > 1:  # a join may repeat rows
                queryset = queryset.values("pk").distinct()
            return Count(queryset.count(), is_estimate=False)
    except OperationalError as error:
        if not _is_time_out(error):
            raise
    return Count(_estimate(connection, queryset), is_estimate=True)


def estimate_table(keys: QuerySet[Any]) -> int | None:
    """Return about how many rows a table has, without reading it; None if that is not known.

    Args:
        keys: All rows of the model.
    """
    if is_document_store(keys.db):
        return count_rows(keys).number
    connection = connections[keys.db]
    if connection.vendor == "sqlite":
        return count_rows(keys, COUNT_SECONDS / 4).number
    estimate = _estimate(connection, keys)
    if estimate is None or estimate < 50_000:  # statistics of a fresh or small table are often far off
        return count_rows(keys, COUNT_SECONDS / 4).number
    return estimate


@contextmanager
def _time_limit(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        with transaction.atomic(using=connection.alias):
            with connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                before = cursor.fetchone()[0]
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{max(seconds * 1000, 1):.0f}ms"])
            yield
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])
    elif connection.vendor == "sqlite":
        timer = threading.Timer(seconds, connection.connection.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
    else:
        yield


def _is_time_out(error: OperationalError) -> bool:
    return is_timed_out(error) or "interrupted" in str(error)


def _estimate(connection: BaseDatabaseWrapper, queryset: QuerySet[Any]) -> int | None:
    """Ask PostgreSQL's planner, which knows the filter, or SQLite for its first and last row number."""
    try:
        if connection.vendor == "postgresql":
            plan = json.loads(queryset.order_by().explain(format="json"))
            return int(plan[0]["Plan"]["Plan Rows"])
        if connection.vendor == "sqlite" and _has_row_numbers(queryset.model):
            table = connection.ops.quote_name(queryset.model._meta.db_table)
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT max(rowid) - min(rowid) + 1 FROM {table}")
                row: tuple[int | None] = cursor.fetchone()
                return row[0]
    except DatabaseError:
        return None
    return None


def _has_row_numbers(model: type[Model]) -> bool:
    """Return whether SQLite numbers the rows; integer keys that are given by hand take the numbers' place."""
    key = model._meta.pk
    while key is not None and key.remote_field is not None:
        key = key.target_field  # type: ignore[attr-defined]
    return isinstance(key, AutoField) or not isinstance(key, IntegerField)
