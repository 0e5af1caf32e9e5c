"""Writes objects of a batch back, in one statement per table."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model, QuerySet, Value

from massmigration.database import is_document_store
from massmigration.engine.keyfilters import SQLITE_PARAMETERS, get_key_fields
from massmigration.exceptions import InvalidDefinition


def get_fields(model: type[Model], names: Iterable[str], key: str) -> list[Field[Any, Any]]:
    """Return the fields of ``update_fields``, or raise InvalidDefinition.

    Args:
        model: The queryset's model.
        names: Field names, or column attribute names such as ``"country_id"``.
        key: The migration's key, for the message.
    """
    if isinstance(names, str):
        raise InvalidDefinition(
            f"update_fields of {key} is the string '{names}'. Make it a list: [\"{names}\"].", key=key
        )
    by_name = {field.name: field for field in model._meta.concrete_fields}
    by_name |= {field.attname: field for field in model._meta.concrete_fields}
    primary_keys = get_key_fields(model)
    fields: list[Field[Any, Any]] = []
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
        if field not in fields:
            fields.append(field)
    return fields


def get_statement_size(model: type[Model], fields: Sequence[Field[Any, Any]]) -> int:
    """Return how many rows one statement can write on SQLite, which bounds its parameters."""
    return SQLITE_PARAMETERS // (len(get_key_fields(model)) + len(fields))


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
    for table, its_fields in by_table.items():
        pk_fields = get_key_fields(table)
        rows = [
            [
                *(getattr(obj, field.attname) for field in pk_fields),
                *(field.pre_save(obj, add=False) for field in its_fields),
            ]
            for obj in objects
        ]
        _get_writer(connection, its_fields, rows)(connection, table, pk_fields, its_fields, rows)


def _get_writer(
    connection: BaseDatabaseWrapper, fields: Sequence[Field[Any, Any]], rows: list[list[Any]]
) -> Callable[..., None]:
    if is_document_store(connection.alias):
        return _write_singly
    if any(hasattr(value, "resolve_expression") and not isinstance(value, Value) for row in rows for value in row):
        return _write_expressions
    if connection.vendor == "sqlite" and sqlite3.sqlite_version_info >= (3, 33):  # which brought UPDATE … FROM
        return _write_listed
    if connection.vendor == "postgresql":  # where unnest would flatten arrays
        has_arrays = any((field.db_type(connection) or "").endswith("]") for field in fields)
        return _write_listed if has_arrays else _write_unnested
    return _write_expressions


def _prepare(
    connection: BaseDatabaseWrapper, columns: Sequence[Field[Any, Any]], rows: list[list[Any]]
) -> list[list[Any]]:
    """Return one list per column, as the database wants its values."""
    return [
        [
            # Value(None, JSONField()) is JSON's null, where None is no value at all.
            field.get_db_prep_value(value.value, connection)
            if isinstance(value, Value)
            else field.get_db_prep_save(value, connection)
            for value in values
        ]
        for field, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _write_expressions(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Leave it to Django, which takes a CASE with a branch for each row; for ``F("visits") + 1`` and its like."""
    names = [field.attname for field in (*pk_fields, *fields)]
    copies: list[Any] = [table(**dict(zip(names, row, strict=True))) for row in rows]
    QuerySet(table, using=connection.alias).bulk_update(copies, [field.name for field in fields])


def _write_singly(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Write row by row; for Datastore and Firestore, which send them together when the transaction is committed."""
    for key, *values in rows:
        new = {field.name: value for field, value in zip(fields, values, strict=True)}
        QuerySet(table, using=connection.alias).filter(pk=key).update(**new)


def _write_unnested(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Send one array per column, twice as fast as a list of rows; for PostgreSQL."""
    columns = [*pk_fields, *fields]
    arrays = ", ".join(f"%s::{_get_cast(field, connection)}[]" for field in columns)
    names = [f"column{number}" for number in range(1, len(columns) + 1)]
    source = f"unnest({arrays}) AS v({', '.join(names)})"
    with connection.cursor() as cursor:
        cursor.execute(
            _get_update(connection, table, pk_fields, fields).format(source),
            _prepare(connection, columns, rows),
        )


def _write_listed(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Send a list of rows; for SQLite, and for arrays on PostgreSQL."""
    columns = [*pk_fields, *fields]
    one, size = ", ".join(["%s"] * len(columns)), SQLITE_PARAMETERS // len(columns)
    if connection.vendor == "postgresql":
        one, size = ", ".join(f"%s::{_get_cast(field, connection)}" for field in columns), len(rows)
    prepared = list(zip(*_prepare(connection, columns, rows), strict=True))
    update = _get_update(connection, table, pk_fields, fields)
    with connection.cursor() as cursor:
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            source = f"(VALUES {', '.join([f'({one})'] * len(chunk))}) AS v"
            cursor.execute(update.format(source), [value for row in chunk for value in row])


def _get_update(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
) -> str:
    """Return ``UPDATE … FROM {} WHERE …``, whose source has the columns ``v.column1``, ``v.column2`` and so on."""

    def quote(name: str | None) -> str:
        return connection.ops.quote_name(name or "").replace("{", "{{").replace("}", "}}")

    target, first = quote(table._meta.db_table), len(pk_fields) + 1
    matches = [f"{target}.{quote(field.column)} = v.column{n}" for n, field in enumerate(pk_fields, start=1)]
    assignments = [f"{quote(field.column)} = v.column{n}" for n, field in enumerate(fields, start=first)]
    return f"UPDATE {target} SET {', '.join(assignments)} FROM {{}} WHERE {' AND '.join(matches)}"


def _get_cast(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """Return the column's type without its length: a cast to ``varchar(9)`` would cut, an assignment refuses."""
    name = re.sub(r"\([^)]*\)", "", field.rel_db_type(connection) or "text")
    return re.sub(r"^char\b", "bpchar", re.sub(r"^bit\b", "varbit", name))
