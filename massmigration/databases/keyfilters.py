"""Filters by primary key that every database answers from the key's index: after a key, up to a key, one of many keys.

Django's own lookups do for a key of one column. For composite keys they become trees of OR on SQLite, which scan the
table and break at a thousand keys, and on PostgreSQL the stack ends at some thousand: so these compare rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Field, Func, Model, Q, Value
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual, LessThanOrEqual
from django.db.models.sql.compiler import SQLCompiler

Condition = Q | Func | GreaterThan | GreaterThanOrEqual | LessThanOrEqual


def get_key_fields(model: type[Model]) -> list[Field[Any, Any]]:
    """Return the fields of a model's primary key, more than one if it is composite."""
    return list(getattr(model._meta, "pk_fields", None) or [model._meta.pk])


def is_after(model: type[Model], key: Any) -> Condition:
    """Return the condition that a row's key is greater than this one."""
    return _compare(model, GreaterThan, key)


def is_from(model: type[Model], key: Any) -> Condition:
    """Return the condition that a row's key is this one or greater."""
    return _compare(model, GreaterThanOrEqual, key)


def is_upto(model: type[Model], key: Any) -> Condition:
    """Return the condition that a row's key is this one or smaller."""
    return _compare(model, LessThanOrEqual, key)


def is_among(model: type[Model], keys: Sequence[Any], *, in_order: bool = True) -> Q:
    """Return the condition that a row's key is one of these.

    Args:
        model: The model.
        keys: What to look for; ``BaseDatabase.chunk_keys`` cuts what is too long for a statement.
        in_order: Whether they come in the order of the database.
    """
    if not keys or len(get_key_fields(model)) == 1:
        return Q(pk__in=keys)
    if not in_order:
        return Q(_IsAmong(model, keys))
    # The list alone would have SQLite scan the table.
    return Q(is_from(model, keys[0]), is_upto(model, keys[-1]), _IsAmong(model, keys))


def _compare(model: type[Model], lookup: type[Any], key: Any) -> Condition:
    fields = get_key_fields(model)
    if len(fields) == 1:
        return Q(**{f"pk__{lookup.lookup_name}": key})
    columns = [F(field.name) for field in fields]
    values = [Value(part, output_field=field) for field, part in zip(fields, key, strict=True)]
    condition: Condition = lookup(_make_row(columns), _make_row(values))
    return condition


def _make_row(parts: Sequence[Any]) -> Func:
    return Func(*parts, template="(%(expressions)s)", output_field=BooleanField())


class _IsAmong(Func):
    """``(a, b) IN ((1, 2), (3, 4))``, with ``VALUES`` before the list where the database knows no bare one."""

    output_field = BooleanField()

    def __init__(self, model: type[Model], keys: Sequence[Any]) -> None:
        self.fields = get_key_fields(model)
        self.keys = keys
        super().__init__(*(F(field.name) for field in self.fields))

    def as_sql(  # type: ignore[override]  # without the options of Func's template, which it does not have
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, keyword: str = ""
    ) -> tuple[str, tuple[Any, ...]]:
        columns = ", ".join(compiler.compile(column)[0] for column in self.get_source_expressions())
        one = f"({', '.join(['%s'] * len(self.fields))})"
        sql = f"({columns}) IN ({keyword}{', '.join([one] * len(self.keys))})"
        return sql, tuple(
            field.get_db_prep_value(part, connection)
            for key in self.keys
            for field, part in zip(self.fields, key, strict=True)
        )

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        """Django calls the method that has the name of the vendor. MySQL works off the bare list by ranges."""
        return self.as_sql(compiler, connection, keyword="VALUES ")

    as_sqlite = as_postgresql  # type: ignore[assignment]  # as above
