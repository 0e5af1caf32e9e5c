"""Ways to write new values of a batch's objects to one table; a database chooses among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, Field, JSONField, Model, QuerySet, TextField, Value, When
from django.db.models.functions import Cast

from massmigration.databases.columns import get_cast, is_key_understood, is_text, is_understood, takes_expressions
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.locking import list_tables
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
            known = ", ".join(sorted(field.name for field in model._meta.concrete_fields))
            fault = f"'{name}', but {model._meta.label} has no such column. Choose among: {known}."
        elif field in primary_keys or field.primary_key:
            fault = f"the primary key '{name}', which identifies the row. Leave it out."
        elif getattr(field, "generated", False):
            fault = f"'{name}', which the database computes by itself. Leave it out."
        else:
            fields.append(field)
            continue
        raise InvalidDefinition(f"update_fields of {key} names {fault}", key=key)
    return list(dict.fromkeys(fields))


@dataclass
class Rows:
    """New values for rows of one table.

    Attributes:
        connection: To the database.
        table: The model of the table.
        pk_fields: The fields of its primary key.
        fields: What is written.
        values: For each row the parts of its key, then its new values.
    """

    connection: BaseDatabaseWrapper
    table: type[Model]
    pk_fields: Sequence[Field[Any, Any]]
    fields: Sequence[Field[Any, Any]]
    values: list[list[Any]]

    @property
    def columns(self) -> list[Field[Any, Any]]:
        """All fields of a row, in the order of its values."""
        return [*self.pk_fields, *self.fields]

    @property
    def are_plain(self) -> bool:
        """Whether the engine's own SQL does for the fields what ``Model.save()`` does."""
        return all(map(is_key_understood, self.pk_fields)) and all(map(is_understood, self.fields))

    @property
    def expressions(self) -> list[Any]:
        """The values that are expressions."""
        return [value for row in self.values for value in row if hasattr(value, "resolve_expression")]

    def prepare(self) -> list[list[Any]]:
        """Return one list per column, as the database wants its values."""
        prepared = []
        for number, (field, values) in enumerate(zip(self.columns, zip(*self.values, strict=True), strict=True)):
            prepare = field.get_db_prep_value if number < len(self.pk_fields) else field.get_db_prep_save
            column = [prepare(value, self.connection) for value in values]
            if is_text(field):  # an array of strings must not hold safe strings and members of TextChoices
                column = [str.__str__(value) if isinstance(value, str) else value for value in column]
            prepared.append(column)
        return prepared

    def split(self, size: int) -> Iterator[dict[Any, list[Any]]]:
        """Yield the new values by key, at most ``size`` rows at once."""
        first = len(self.pk_fields)
        for start in range(0, len(self.values), size):
            part = self.values[start : start + size]
            yield {row[0] if first == 1 else tuple(row[:first]): row[first:] for row in part}


def list_rows(
    objects: Sequence[Model], fields: Sequence[Field[Any, Any]], connection: BaseDatabaseWrapper
) -> Iterator[Rows]:
    """Yield what is to be written to each table that holds some of the fields, parents' tables first.

    Objects and fields are those of ``BaseDatabase.write_objects``.
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
        values = [
            [
                *(getattr(obj, field.attname) for field in pk_fields),
                *(field.pre_save(obj, add=False) for field in its_fields),
            ]
            for obj in objects
        ]
        yield Rows(connection, table, pk_fields, its_fields, values)


def is_understood_by_us(rows: Rows) -> bool:
    """Return whether one statement of the engine's own can write the rows."""
    return rows.are_plain and all(map(_is_json_null, rows.expressions))


def takes_cases(rows: Rows) -> bool:
    """Return whether ``write_cases`` can write the rows; in a CASE, Django takes the null of JSON for no value."""
    can_be_cases = rows.are_plain and all(map(takes_expressions, rows.fields))
    return can_be_cases and not any(map(_is_json_null, rows.expressions))


def _is_json_null(value: Any) -> bool:
    """Return whether the value is ``Value(None, JSONField())``: JSON's null, where None is no value at all."""
    return (
        type(value) is Value
        and value.value is None
        and isinstance(getattr(value, "_output_field_or_none", None), JSONField)
    )


def write_cases(rows: Rows) -> None:
    """Write a CASE with a branch for each row, as ``bulk_update`` does; for ``F("visits") + 1`` and its like.

    Unlike there, text that is too long for its column is refused: on PostgreSQL a cast to ``varchar(9)`` would cut it.
    """
    needs_casts = rows.connection.features.requires_casted_case_in_updates
    queryset: QuerySet[Any] = QuerySet(rows.table, using=rows.connection.alias)
    size = rows.connection.ops.bulk_batch_size(["pk", "pk", *rows.fields], rows.values)
    for by_key in rows.split(size):
        new: dict[str, Any] = {}
        for number, field in enumerate(rows.fields):
            branches = [When(pk=key, then=_make_expression(values[number], field)) for key, values in by_key.items()]
            new[field.attname] = Case(*branches, output_field=field)
            if needs_casts:
                new[field.attname] = Cast(new[field.attname], TextField() if is_text(field) else field)
        queryset.filter(pk__in=list(by_key)).update(**new)


def _make_expression(value: Any, field: Field[Any, Any]) -> Any:
    return value if hasattr(value, "resolve_expression") else Value(value, output_field=field)


def write_singly(rows: Rows) -> None:
    """Write row by row, with the statement of ``Model.save()``; for fields that only Django knows how to write.

    Datastore and Firestore send them together when the transaction is committed.
    """
    for by_key in rows.split(1):
        for key, values in by_key.items():
            new = {field.attname: value for field, value in zip(rows.fields, values, strict=True)}
            QuerySet(rows.table, using=rows.connection.alias).filter(pk=key).update(**new)


def write_unnested(rows: Rows, values: list[list[Any]]) -> None:
    """Send one array per column, all of which ``Rows.prepare`` has returned; for PostgreSQL."""
    arrays = ", ".join(f"%s::{get_cast(field, rows.connection)}[]" for field in rows.columns)
    names = [f"column{number}" for number in range(1, len(rows.columns) + 1)]
    source = f"unnest({arrays}) AS {NEW}({', '.join(names)})"
    with rows.connection.cursor() as cursor:
        cursor.execute(_get_update(rows).format(source), values)


def write_listed(rows: Rows, values: list[list[Any]], *, size: int, casts: Sequence[str] = ()) -> None:
    """Send a list of rows; for SQLite, and for arrays on PostgreSQL.

    Args:
        rows: What to write.
        values: Its columns, as ``Rows.prepare`` returned them.
        size: How many rows one statement can have.
        casts: The columns' types, where the database has to be told.
    """
    prepared = list(zip(*values, strict=True))
    one = ", ".join([f"%s::{cast}" for cast in casts] or ["%s"] * len(rows.columns))
    update = _get_update(rows)
    with rows.connection.cursor() as cursor:
        for start in range(0, len(prepared), size):
            chunk = prepared[start : start + size]
            source = f"(VALUES {', '.join([f'({one})'] * len(chunk))}) AS {NEW}"
            cursor.execute(update.format(source), [value for row in chunk for value in row])


def _get_update(rows: Rows) -> str:
    """Return ``UPDATE … FROM {} WHERE …``, whose source has the columns ``column1``, ``column2`` and so on."""

    def quote(name: str | None) -> str:
        return rows.connection.ops.quote_name(name or "").replace("{", "{{").replace("}", "}}")

    target, first = quote(rows.table._meta.db_table), len(rows.pk_fields) + 1
    matches = [f"{target}.{quote(field.column)} = {NEW}.column{n}" for n, field in enumerate(rows.pk_fields, start=1)]
    assignments = [f"{quote(field.column)} = {NEW}.column{n}" for n, field in enumerate(rows.fields, start=first)]
    return f"UPDATE {target} SET {', '.join(assignments)} FROM {{}} WHERE {' AND '.join(matches)}"
