"""Writes objects of a batch back: in one statement per table, or as Django does, where only Django knows how."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, Field, JSONField, Model, QuerySet, TextField, Value, When
from django.db.models.functions import Cast

from massmigration.databases.columns import (
    get_cast,
    has_plain_values,
    is_array,
    is_key_understood,
    is_text,
    is_understood,
    takes_expressions,
)
from massmigration.databases.keyfilters import SQLITE_PARAMETERS, get_key_fields
from massmigration.databases.locking import list_tables
from massmigration.databases.transactions import is_document_store
from massmigration.exceptions import InvalidDefinition

NEW: Final = "massmigration_new"
"""What a statement calls the new values: no table that is migrated has this name."""


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
    """Write ``fields`` of the objects, if possible in one statement per table that holds some of them.

    Args:
        objects: Instances of one model, with distinct primary keys, after ``prepare_related``.
        fields: What to write; fields of a multi-table parent are written to the parent's table.
        alias: The database.
    """
    if not objects:
        return
    by_table: dict[type[Model], list[Field[Any, Any]]] = defaultdict(list)
    for field in fields:
        by_table[field.model._meta.concrete_model or field.model].append(field)
    for table in list_tables(type(objects[0])):
        if not (its_fields := by_table[table]):
            continue
        pk_fields = get_key_fields(table)
        rows = [
            [
                *(getattr(obj, field.attname) for field in pk_fields),
                *(field.pre_save(obj, add=False) for field in its_fields),
            ]
            for obj in objects
        ]
        _write_table(connections[alias], table, pk_fields, its_fields, rows)


def _write_table(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Choose the fastest way that does all that ``Model.save()`` does."""
    write_otherwise = _choose_djangos_way(connection, pk_fields, fields, rows)
    if write_otherwise is not None:
        write_otherwise(connection, table, pk_fields, fields, rows)
        return
    columns = [*pk_fields, *fields]
    values = _prepare(connection, pk_fields, fields, rows)
    if connection.vendor == "sqlite":
        _write_listed(connection, table, pk_fields, fields, values)
    elif not all(map(has_plain_values, columns, values)):
        _write_singly(connection, table, pk_fields, fields, rows)
    elif any(map(is_array, fields)):  # which unnest would flatten
        _write_listed(connection, table, pk_fields, fields, values)
    else:
        _write_unnested(connection, table, pk_fields, fields, values)


def _choose_djangos_way(
    connection: BaseDatabaseWrapper,
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> Callable[..., None] | None:
    is_ours = all(map(is_key_understood, pk_fields)) and all(map(is_understood, fields))
    if is_document_store(connection.alias) or not is_ours:
        return _write_singly
    values = [value for row in rows for value in row if hasattr(value, "resolve_expression")]
    has_expressions = not all(map(_is_json_null, values))
    # UPDATE … FROM came with SQLite 3.33; MySQL and Oracle do not have it.
    is_known = connection.vendor == "postgresql" or (
        connection.vendor == "sqlite" and sqlite3.sqlite_version_info >= (3, 33)
    )
    if is_known and not has_expressions:
        return None
    # In a CASE, Django takes the null of JSON for no value.
    can_be_cases = all(map(takes_expressions, fields)) and not any(map(_is_json_null, values))
    return _write_cases if can_be_cases else _write_singly


def _is_json_null(value: Any) -> bool:
    """Return whether the value is ``Value(None, JSONField())``: JSON's null, where None is no value at all."""
    return (
        type(value) is Value
        and value.value is None
        and isinstance(getattr(value, "_output_field_or_none", None), JSONField)
    )


def _prepare(
    connection: BaseDatabaseWrapper,
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> list[list[Any]]:
    """Return one list per column, as the database wants its values."""
    prepared = []
    for number, (field, values) in enumerate(zip((*pk_fields, *fields), zip(*rows, strict=True), strict=True)):
        prepare = field.get_db_prep_value if number < len(pk_fields) else field.get_db_prep_save
        column = [prepare(value, connection) for value in values]
        if is_text(field):  # an array of strings must not hold safe strings and members of TextChoices
            column = [str.__str__(value) if isinstance(value, str) else value for value in column]
        prepared.append(column)
    return prepared


def _write_cases(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Write a CASE with a branch for each row, as ``bulk_update`` does; for ``F("visits") + 1`` and its like.

    Unlike there, text that is too long for its column is refused: on PostgreSQL a cast to ``varchar(9)`` would cut it.
    """
    needs_casts = connection.features.requires_casted_case_in_updates
    first = len(pk_fields)
    queryset: QuerySet[Any] = QuerySet(table, using=connection.alias)
    size = connection.ops.bulk_batch_size(["pk", "pk", *fields], rows)
    for start in range(0, len(rows), size):
        by_key = {row[0] if first == 1 else tuple(row[:first]): row[first:] for row in rows[start : start + size]}
        new: dict[str, Any] = {}
        for number, field in enumerate(fields):
            branches = [When(pk=key, then=_make_expression(values[number], field)) for key, values in by_key.items()]
            new[field.attname] = Case(*branches, output_field=field)
            if needs_casts:
                new[field.attname] = Cast(new[field.attname], TextField() if is_text(field) else field)
        queryset.filter(pk__in=list(by_key)).update(**new)


def _make_expression(value: Any, field: Field[Any, Any]) -> Any:
    return value if hasattr(value, "resolve_expression") else Value(value, output_field=field)


def _write_singly(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    """Write row by row, with the statement of ``Model.save()``; for fields that only Django knows how to write.

    Datastore and Firestore send them together when the transaction is committed.
    """
    first = len(pk_fields)
    for row in rows:
        new = {field.attname: value for field, value in zip(fields, row[first:], strict=True)}
        key = row[0] if first == 1 else tuple(row[:first])
        QuerySet(table, using=connection.alias).filter(pk=key).update(**new)


def _write_unnested(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    values: list[list[Any]],
) -> None:
    """Send one array per column, twice as fast as a list of rows; for PostgreSQL."""
    columns = [*pk_fields, *fields]
    arrays = ", ".join(f"%s::{get_cast(field, connection)}[]" for field in columns)
    names = [f"column{number}" for number in range(1, len(columns) + 1)]
    source = f"unnest({arrays}) AS {NEW}({', '.join(names)})"
    with connection.cursor() as cursor:
        cursor.execute(_get_update(connection, table, pk_fields, fields).format(source), values)


def _write_listed(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    values: list[list[Any]],
) -> None:
    """Send a list of rows; for SQLite, and for arrays on PostgreSQL."""
    columns, prepared = [*pk_fields, *fields], list(zip(*values, strict=True))
    one, size = ", ".join(["%s"] * len(columns)), SQLITE_PARAMETERS // len(columns)
    if connection.vendor == "postgresql":
        one, size = ", ".join(f"%s::{get_cast(field, connection)}" for field in columns), len(prepared)
    update = _get_update(connection, table, pk_fields, fields)
    with connection.cursor() as cursor:
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            source = f"(VALUES {', '.join([f'({one})'] * len(chunk))}) AS {NEW}"
            cursor.execute(update.format(source), [value for row in chunk for value in row])


def _get_update(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
) -> str:
    """Return ``UPDATE … FROM {} WHERE …``, whose source has the columns ``column1``, ``column2`` and so on."""

    def quote(name: str | None) -> str:
        return connection.ops.quote_name(name or "").replace("{", "{{").replace("}", "}}")

    target, first = quote(table._meta.db_table), len(pk_fields) + 1
    matches = [f"{target}.{quote(field.column)} = {NEW}.column{n}" for n, field in enumerate(pk_fields, start=1)]
    assignments = [f"{quote(field.column)} = {NEW}.column{n}" for n, field in enumerate(fields, start=first)]
    return f"UPDATE {target} SET {', '.join(assignments)} FROM {{}} WHERE {' AND '.join(matches)}"
