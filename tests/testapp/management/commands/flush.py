"""Empties the databases between tests: Django's ``flush``, but only for the tables that have rows.

Django's empties every table on each database, and makes content types and permissions again after it. That took half
of the time of all tests. The rows that ``migrate`` made are kept here instead, which is the same.
"""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

MADE_BY_MIGRATE = {"auth_permission", "django_content_type", "django_migrations"}
LARGE_BYTES = 8 * 8192  # eight pages of PostgreSQL


class Command(flush.Command):
    """What ``TransactionTestCase`` calls after each test."""

    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        if connection.vendor not in ("postgresql", "sqlite") or options["interactive"]:
            super().handle(**options)
            return
        if filled := _find_filled(connection):
            _empty(connection, filled)


def _find_filled(connection: BaseDatabaseWrapper) -> list[str]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    names = [name for name in tables if name not in MADE_BY_MIGRATE]
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        # SQLite takes 500 parts of a UNION.
        parts = (f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {quote(name)})" for name in names)
        cursor.execute(" UNION ALL ".join(parts))
        return [name for (name,) in cursor.fetchall()]


def _empty(connection: BaseDatabaseWrapper, names: list[str]) -> None:
    quote = connection.ops.quote_name
    if connection.vendor == "postgresql":
        large = _find_large(connection, names)
        statements = [f"DELETE FROM {quote(name)}" for name in names if name not in large]
        if large:
            statements.insert(0, f"TRUNCATE {', '.join(map(quote, large))} CASCADE")
        connection.ops.execute_sql_flush(statements)
        return
    with connection.constraint_checks_disabled():
        connection.ops.execute_sql_flush([f"DELETE FROM {quote(name)}" for name in names])


def _find_large(connection: BaseDatabaseWrapper, names: list[str]) -> list[str]:
    """Return the tables that only TRUNCATE makes as new: with many pages, or with statistics.

    It makes new files, which takes fifty times as long as deleting a few rows does.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND (relpages > 0 OR pg_relation_size(oid) > %s)",
            [names, LARGE_BYTES],
        )
        return [name for (name,) in cursor.fetchall()]
