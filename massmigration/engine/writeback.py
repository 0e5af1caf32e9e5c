"""Writes the changed objects of a batch in one statement per table, and never over somebody else's change."""

from __future__ import annotations

import copy
import datetime
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model, QuerySet

from massmigration.exceptions import InvalidDefinition

_IMMUTABLE: Final = (
    str, int, float, bool, bytes, Decimal, uuid.UUID, datetime.date, datetime.time, datetime.timedelta, type(None),
)  # fmt: skip
_ABSENT: Final = object()
_SQLITE_PARAMETERS: Final = 32766
"""SQLITE_MAX_VARIABLE_NUMBER of SQLite 3.32 and newer (https://www.sqlite.org/limits.html)."""


def get_fields(model: type[Model], names: Iterable[str], key: str) -> list[Field[Any, Any]]:
    """Return the fields of ``update_fields``, or raise InvalidDefinition.

    Args:
        model: The queryset's model.
        names: Field names, or column attribute names such as ``"country_id"``.
        key: The migration's key, for the message.
    """
    by_name = {field.name: field for field in model._meta.concrete_fields}
    by_name |= {field.attname: field for field in model._meta.concrete_fields}
    primary_keys = set(getattr(model._meta, "pk_fields", None) or [model._meta.pk])
    fields = []
    for name in names:
        field = by_name.get(name)
        if field is None:
            raise InvalidDefinition(
                f"update_fields of {key} names '{name}', but {model._meta.label} has no such column. "
                f"Choose among: {', '.join(sorted(field.name for field in model._meta.concrete_fields))}.",
                key=key,
            )
        if field in primary_keys or field.primary_key:
            raise InvalidDefinition(
                f"update_fields of {key} names the primary key '{name}', which identifies the row. Leave it out.",
                key=key,
            )
        if getattr(field, "generated", False):
            raise InvalidDefinition(
                f"update_fields of {key} names '{name}', which the database computes by itself. Leave it out.",
                key=key,
            )
        fields.append(field)
    return fields


class Snapshot:
    """The values that a batch's objects were loaded with.

    Args:
        objects: Freshly loaded, not yet given to the operation.
        fields: The fields of ``update_fields``.
    """

    def __init__(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
        self._fields = fields
        self._columns = [field.attname for field in objects[0]._meta.concrete_fields] if objects else []
        self._loaded = {obj.pk: self._take(obj) for obj in objects}

    def find_changed(self, objects: Sequence[Model]) -> list[Model]:
        """Return the objects whose ``update_fields`` are not as they were loaded."""
        names = [field.attname for field in self._fields]
        changed = []
        for obj in objects:
            values, loaded = obj.__dict__, self._loaded[obj.pk]
            if any(
                values.get(name, _ABSENT) != loaded.get(name, _ABSENT)
                or type(values.get(name)) is not type(loaded.get(name))
                for name in names
            ):
                changed.append(obj)
        return changed

    def find_stale(self, objects: Sequence[Model], alias: str) -> set[Any]:
        """Return the keys of the objects whose rows are not as they were loaded any more, or are gone.

        Args:
            objects: The batch's objects, worked.
            alias: The database; to be called in the transaction that writes.
        """
        if not objects:
            return set()
        model = type(objects[0])
        names = [name for name in self._columns if any(name in obj.__dict__ for obj in objects[:1])]
        rows = QuerySet(model, using=alias).filter(pk__in=[obj.pk for obj in objects])
        stored = {row[0]: row[1:] for row in rows.values_list("pk", *names)}
        stale = set()
        for obj in objects:
            loaded = self._loaded[obj.pk]
            expected = tuple(loaded.get(name, obj.__dict__.get(name)) for name in names)
            if stored.get(obj.pk) != expected:
                stale.add(obj.pk)
        return stale

    def _take(self, obj: Model) -> dict[str, Any]:
        values = obj.__dict__
        return {
            name: value if isinstance(value, _IMMUTABLE) else copy.deepcopy(value)
            for name in self._columns
            if (value := values.get(name, _ABSENT)) is not _ABSENT
        }


def write_objects(objects: Sequence[Model], fields: Sequence[Field[Any, Any]], alias: str) -> None:
    """Write ``fields`` of the objects, one statement per table that holds some of them.

    Args:
        objects: Instances of one model, with distinct primary keys.
        fields: What to write; fields of a multi-table parent are written to the parent's table.
        alias: The database.
    """
    if not objects:
        return
    connection = connections[alias]
    by_table: dict[type[Model], list[Field[Any, Any]]] = defaultdict(list)
    for field in fields:
        by_table[field.model._meta.concrete_model or field.model].append(field)
    for obj in objects:
        for field in fields:
            field.pre_save(obj, add=False)
    for table, its_fields in by_table.items():
        pk_fields = list(getattr(table._meta, "pk_fields", None) or [table._meta.pk])
        columns = [*pk_fields, *its_fields]
        rows = [[getattr(obj, field.attname) for field in columns] for obj in objects]
        write = _WRITERS.get(connection.vendor)
        if write is None or _has_expression(rows) or not _can_write(connection, its_fields):
            names = [field.name for field in its_fields]
            QuerySet(table, using=alias).bulk_update(list(objects), names)
        else:
            write(connection, table, pk_fields, its_fields, rows)


def _has_expression(rows: list[list[Any]]) -> bool:
    return any(hasattr(value, "resolve_expression") for row in rows for value in row)


def _can_write(connection: BaseDatabaseWrapper, fields: Sequence[Field[Any, Any]]) -> bool:
    if connection.vendor == "sqlite":
        return sqlite3.sqlite_version_info >= (3, 33)  # UPDATE … FROM
    return not any((field.db_type(connection) or "[]").endswith("]") for field in fields)  # unnest flattens arrays


def _prepare(
    connection: BaseDatabaseWrapper, columns: Sequence[Field[Any, Any]], rows: list[list[Any]]
) -> list[list[Any]]:
    prepared = [
        [field.get_db_prep_save(value, connection) for value in values]
        for field, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    return prepared  # one list per column


def _write_postgresql(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    quote = connection.ops.quote_name
    columns = [*pk_fields, *fields]
    arrays = ", ".join(f"%s::{field.rel_db_type(connection)}[]" for field in columns)
    names = [f"c{number}" for number in range(len(columns))]
    assignments = ", ".join(
        f"{quote(field.column)} = v.{name}" for field, name in zip(fields, names[len(pk_fields) :], strict=True)
    )
    matches = " AND ".join(f"t.{quote(field.column)} = v.{name}" for field, name in zip(pk_fields, names, strict=False))
    sql = (
        f"UPDATE {quote(table._meta.db_table)} AS t SET {assignments} "
        f"FROM unnest({arrays}) AS v({', '.join(names)}) WHERE {matches}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, _prepare(connection, columns, rows))


def _write_sqlite(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    quote = connection.ops.quote_name
    columns = [*pk_fields, *fields]
    assignments = ", ".join(
        f"{quote(field.column)} = v.column{number}" for number, field in enumerate(fields, start=len(pk_fields) + 1)
    )
    matches = " AND ".join(
        f"{quote(table._meta.db_table)}.{quote(field.column)} = v.column{number}"
        for number, field in enumerate(pk_fields, start=1)
    )
    one = f"({', '.join(['%s'] * len(columns))})"
    prepared = list(zip(*_prepare(connection, columns, rows), strict=True))
    size = _SQLITE_PARAMETERS // len(columns)
    with connection.cursor() as cursor:
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            sql = (
                f"UPDATE {quote(table._meta.db_table)} SET {assignments} "
                f"FROM (VALUES {', '.join([one] * len(chunk))}) AS v WHERE {matches}"
            )
            cursor.execute(sql, [value for row in chunk for value in row])


_WRITERS: Final[dict[str, Callable[..., None]]] = {
    "postgresql": _write_postgresql,
    "sqlite": _write_sqlite,
}
