"""Locks rows by their keys, in the order in which Django's ``save()`` writes them: parents' tables first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Model, QuerySet

from massmigration.databases.keyfilters import get_key_fields, is_among


def lock_rows(model: type[Model], keys: Sequence[Any], alias: str) -> list[Any]:
    """Lock rows and, with multi-table inheritance, their parents' rows; to be called in a transaction.

    ``Model.save()`` writes the parents' tables before the child's. If we locked the child's rows first, we would wait
    for the site's transaction, which waits for the child's row: a deadlock.

    Args:
        model: The model.
        keys: Primary keys, in the order of the database.
        alias: A database with row locks.

    Returns:
        The keys of the rows that are locked, in order: without those that are gone by now, or have another key.
    """
    for parent, link in model._meta.parents.items():
        if link is None:  # a proxy, which has no table
            return lock_rows(parent, keys, alias)
        chosen = keys
        if not link.primary_key:
            mine: QuerySet[Any] = QuerySet(model, using=alias).filter(is_among(model, keys))
            chosen = list(mine.values_list(link.attname, flat=True))
        lock_rows(parent, chosen, alias)
    rows: QuerySet[Any] = QuerySet(model, using=alias).filter(is_among(model, keys))
    return list_keys(lock_query(rows.order_by("pk")))


def list_tables(model: type[Model]) -> list[type[Model]]:
    """Return the models whose tables hold a row of this one, in the order in which ``Model.save()`` writes them."""
    tables: list[type[Model]] = []
    for parent in model._meta.parents:
        tables += [table for table in list_tables(parent) if table not in tables]
    concrete = model._meta.concrete_model or model
    return tables if concrete in tables else [*tables, concrete]


def lock_query(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return the query with a lock on the rows of its own table, as weak as the database has it."""
    has_no_key = connections[rows.db].features.has_select_for_no_key_update
    # FOR UPDATE OF takes no schema's name: such a table is locked by a statement that reads nothing else.
    of = () if has_schema(rows.model) else ("self",)
    return rows.select_for_update(of=of, no_key=bool(has_no_key))


def has_schema(model: type[Model]) -> bool:
    """Return whether ``db_table`` names a schema by the quotes in it, as ``"schema"."table"`` does."""
    return '"."' in model._meta.db_table


def list_keys(rows: QuerySet[Any]) -> list[Any]:
    """Return the keys of the rows that the database finds, whatever an author's class of querysets yields."""
    fields = get_key_fields(rows.model)
    plain: QuerySet[Any] = QuerySet(rows.model, query=rows.query.chain(), using=rows.db)
    if len(fields) == 1:
        return [key for (key,) in plain.values_list("pk")]
    # Column by column, because Django cannot lock what selects a composite key.
    return list(map(tuple, plain.values_list(*(field.attname for field in fields))))
