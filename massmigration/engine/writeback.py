"""Writes the changed objects of a batch in one statement per table, and never over somebody else's change."""

from __future__ import annotations

import copy
import datetime
import re
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model, QuerySet

from massmigration.engine.keyfilters import SQLITE_PARAMETERS, chunk_keys, get_key_fields, is_among
from massmigration.exceptions import InvalidDefinition

_IMMUTABLE: Final = (
    str, int, float, bool, bytes, Decimal, uuid.UUID, datetime.date, datetime.time, datetime.timedelta, type(None),
)  # fmt: skip
_NUMBERS: Final = (bool, int, float)
_ABSENT: Final = object()


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


class Snapshot:
    """The values that a batch's objects were loaded with.

    Args:
        objects: Freshly loaded, not yet given to the operation.
        fields: The fields of ``update_fields``.
    """

    def __init__(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
        self._names = [field.attname for field in fields]
        columns = [field.attname for field in objects[0]._meta.concrete_fields] if objects else []
        self._loaded = [(obj.pk, _take(obj, columns)) for obj in objects]

    def find_changed(self, objects: Sequence[Model]) -> list[Model]:
        """Return the objects whose ``update_fields`` are not as they were loaded.

        Args:
            objects: Those that the snapshot was made of, or the first of them.

        Raises:
            ValueError: The operation gave an object another primary key, so that its row is not known any more.
        """
        changed = []
        for obj, (pk, loaded) in zip(objects, self._loaded, strict=False):
            if obj.pk != pk:
                raise ValueError(
                    f"The operation changed the primary key of {obj._meta.label} {pk!r} to {obj.pk!r}, but with "
                    "update_fields it may only set these fields. To copy or delete objects, leave update_fields out."
                )
            values = obj.__dict__
            if not all(_is_same(values.get(name, _ABSENT), loaded.get(name, _ABSENT)) for name in self._names):
                changed.append(obj)
        return changed

    def find_stale(self, objects: Sequence[Model], alias: str) -> set[Any]:
        """Return the keys of the objects whose rows are not as they were loaded any more, or are gone.

        Args:
            objects: Those that the snapshot was made of, or the first of them.
            alias: The database; to be called in the transaction that writes.
        """
        if not objects:
            return set()
        model, expected = type(objects[0]), self._loaded[: len(objects)]
        names = list(expected[0][1])
        stored: dict[Any, tuple[Any, ...]] = {}
        for keys in chunk_keys(model, [pk for pk, _ in expected], connections[alias]):
            rows: QuerySet[Any] = QuerySet(model, using=alias).filter(is_among(model, keys))
            stored |= {row[0]: row[1:] for row in rows.values_list("pk", *names)}
        return {pk for pk, loaded in expected if stored.get(pk) != tuple(map(loaded.get, names))}


def _take(obj: Model, columns: Sequence[str]) -> dict[str, Any]:
    values = obj.__dict__
    return {
        name: value if isinstance(value, _IMMUTABLE) else copy.deepcopy(value)
        for name in columns
        if (value := values.get(name, _ABSENT)) is not _ABSENT
    }


def _is_same(new: Any, old: Any) -> bool:
    """Compare as JSON does: True is not 1, and 1 is not 1.0, however deep they lie."""
    if isinstance(new, dict) and isinstance(old, dict):
        return new.keys() == old.keys() and all(_is_same(value, old[key]) for key, value in new.items())
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)):
        return len(new) == len(old) and all(map(_is_same, new, old))
    if [isinstance(new, kind) for kind in _NUMBERS] != [isinstance(old, kind) for kind in _NUMBERS]:
        return False
    try:
        return bool(new == old)
    except ValueError:  # arrays of numbers do not compare to one truth
        return False


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
        write = _WRITERS.get(connection.vendor)
        if write is None or _has_expression(rows) or not _can_write(connection, its_fields):
            names = [field.attname for field in (*pk_fields, *its_fields)]
            copies: list[Any] = [table(**dict(zip(names, row, strict=True))) for row in rows]
            QuerySet(table, using=alias).bulk_update(copies, [field.name for field in its_fields])
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
    """Return one list per column, as the database wants its values."""
    return [
        [field.get_db_prep_save(value, connection) for value in values]
        for field, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _write_postgresql(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    columns = [*pk_fields, *fields]
    arrays = ", ".join(f"%s::{_get_cast(field, connection)}[]" for field in columns)
    names = [f"c{number}" for number in range(len(columns))]
    assignments = ", ".join(
        f"{_quote(field.column, connection)} = v.{name}"
        for field, name in zip(fields, names[len(pk_fields) :], strict=True)
    )
    matches = " AND ".join(
        f"t.{_quote(field.column, connection)} = v.{name}" for field, name in zip(pk_fields, names, strict=False)
    )
    sql = (
        f"UPDATE {_quote(table._meta.db_table, connection)} AS t SET {assignments} "
        f"FROM unnest({arrays}) AS v({', '.join(names)}) WHERE {matches}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, _prepare(connection, columns, rows))


def _get_cast(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """Return the column's type without its length: a cast to ``varchar(9)`` would cut, an assignment refuses."""
    name = re.sub(r"\([^)]*\)", "", field.rel_db_type(connection) or "text")
    return {"char": "bpchar", "bit": "varbit"}.get(name, name)


def _quote(name: str | None, connection: BaseDatabaseWrapper) -> str:
    return connection.ops.quote_name(name or "").replace("%", "%%")


def _write_sqlite(
    connection: BaseDatabaseWrapper,
    table: type[Model],
    pk_fields: Sequence[Field[Any, Any]],
    fields: Sequence[Field[Any, Any]],
    rows: list[list[Any]],
) -> None:
    columns = [*pk_fields, *fields]
    target = _quote(table._meta.db_table, connection)
    assignments = ", ".join(
        f"{_quote(field.column, connection)} = v.column{number}"
        for number, field in enumerate(fields, start=len(pk_fields) + 1)
    )
    matches = " AND ".join(
        f"{target}.{_quote(field.column, connection)} = v.column{number}"
        for number, field in enumerate(pk_fields, start=1)
    )
    one = f"({', '.join(['%s'] * len(columns))})"
    prepared = list(zip(*_prepare(connection, columns, rows), strict=True))
    size = SQLITE_PARAMETERS // len(columns)
    with connection.cursor() as cursor:
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            sql = (
                f"UPDATE {target} SET {assignments} FROM (VALUES {', '.join([one] * len(chunk))}) AS v WHERE {matches}"
            )
            cursor.execute(sql, [value for row in chunk for value in row])


_WRITERS: Final[dict[str, Callable[..., None]]] = {
    "postgresql": _write_postgresql,
    "sqlite": _write_sqlite,
}
