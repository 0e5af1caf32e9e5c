"""The table of a migration: its queryset, checked and bound to a database."""

from __future__ import annotations

from django.db import connections

from massmigration.databases.tables import Table
from massmigration.definitions.base import QuerysetMigration
from massmigration.engine.querysets import check_queryset, filters_on
from massmigration.exceptions import InvalidDefinition


def get_table(migration: QuerysetMigration, db_alias: str) -> Table:
    """Return the rows that a migration goes through, or raise InvalidDefinition if they cannot be worked."""
    queryset = migration.get_queryset(db_alias)
    work_alias = migration.other_database or db_alias
    if work_alias not in connections:
        raise InvalidDefinition(
            f"other_database of {migration.key} is '{work_alias}', but DATABASES has no such alias. Correct it.",
            key=migration.key,
        )
    check_queryset(queryset, migration.key, work_alias)
    table = Table(queryset.using(work_alias))  # where it is not bound, a router may answer differently next time
    table.database.check_key(table.codec)
    return table


def is_until_empty(migration: QuerysetMigration, table: Table) -> bool:
    """Return whether another pass looks for rows that were added to a part that is done."""
    if migration.until_empty is not None:
        return migration.until_empty
    fields = getattr(migration, "update_fields", ())
    return bool(fields) and filters_on(table.queryset, set(fields))
