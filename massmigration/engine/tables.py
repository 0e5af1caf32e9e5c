"""The table of a migration: the author's queryset, checked and bound to a database, what it filters on, and ranges."""

from __future__ import annotations

from typing import Any, Final

from django.db import connections
from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from massmigration.databases.ranges import KeyRange
from massmigration.databases.tables import Table
from massmigration.definitions.base import QuerysetMigration
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard

_REFUSALS: Final = (
    (lambda qs: qs.query.is_sliced, "is sliced", "Leave the slice out and filter instead."),
    (
        lambda qs: bool(qs.query.combinator),
        "is a union, intersection or difference",
        "Use Q objects in one filter instead.",
    ),
    (
        lambda qs: bool(qs.query.distinct_fields),
        "is distinct on fields",
        "Leave it out: each row is visited once anyway.",
    ),
    (
        lambda qs: qs._fields is not None or not issubclass(qs._iterable_class, ModelIterable),
        "gives values instead of objects",
        "Leave values() out; use only() to read fewer columns.",
    ),
    (
        lambda qs: qs.query.select_for_update and set(qs.query.select_for_update_of) - {"self"},
        "locks related rows with select_for_update(of=…)",
        "Leave it out: each batch locks its own rows. Lock others in prepare(), without update_fields.",
    ),
    (
        lambda qs: any(
            getattr(part, "contains_over_clause", False) for part in (qs.query.where, *qs.query.annotations.values())
        ),
        "has a window function, which would start again in each batch",
        "Compute it in prepare() or with a subquery.",
    ),
)


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


def decode_range(table: Table, after: str | None, upto: str | None) -> KeyRange:
    """Return a range of keys whose bounds are encoded."""
    return KeyRange(
        None if after is None else table.codec.decode(after),
        None if upto is None else table.codec.decode(upto),
    )


def get_rest(table: Table, shard: MigrationShard) -> KeyRange:
    """Return the keys of a range that are not done yet."""
    return decode_range(table, shard.lower if shard.cursor is None else shard.cursor, shard.upper)


def check_queryset(queryset: Any, key: str, db_alias: str) -> None:
    """Raise InvalidDefinition if what ``get_queryset`` returned cannot be worked batch by batch on this database."""
    if not isinstance(queryset, QuerySet):
        raise InvalidDefinition(
            f"get_queryset() of {key} returned {type(queryset).__name__}. Return a QuerySet.", key=key
        )
    for is_refused, fact, way_out in _REFUSALS:
        if is_refused(queryset):
            raise InvalidDefinition(f"The queryset of {key} {fact}. {way_out}", key=key)
    bound_to = queryset.db  # asked once: where it is not bound, a router may answer by chance
    if bound_to != db_alias:
        raise InvalidDefinition(
            f"The queryset of {key} is bound to database '{bound_to}', but the migration runs on '{db_alias}'. "
            "Begin it with Model.objects.using(db_alias), or name the other one in other_database.",
            key=key,
        )


def filters_on(queryset: QuerySet[Any], names: set[str]) -> bool:
    """Return whether the queryset's own WHERE clause looks at one of these fields of its model."""
    fields = queryset.model._meta.concrete_fields
    columns = {field.column for field in fields if {field.name, field.attname} & names}
    todo: list[Any] = [queryset.query.where]
    while todo:
        node = todo.pop()
        target = getattr(node, "target", None)
        if getattr(target, "column", None) in columns and getattr(target, "model", None) in (
            queryset.model._meta.concrete_model,
            *queryset.model._meta.all_parents,
        ):
            return True
        todo += getattr(node, "children", ())
        todo += [part for part in getattr(node, "get_source_expressions", list)() if part is not None]
    return False
