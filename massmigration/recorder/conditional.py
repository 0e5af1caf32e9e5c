"""Writes to rows that are still as expected: one UPDATE on SQL, read and compared on Datastore and Firestore."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db import transaction
from django.db.models import Model, QuerySet

from massmigration.databases.transactions import is_document_store

DOCUMENT_LIMIT: Final = 400
"""Rows that one transaction may write there; django-gcloud-connectors refuse more than 500."""

_LOOKUPS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "": operator.eq,
    "in": lambda stored, expected: stored in expected,
    "lt": lambda stored, expected: stored is not None and stored < expected,
}


def update_if(rows: QuerySet[Any], expected: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    """Set fields of those rows that are as expected, in one transaction.

    Args:
        rows: Chosen by primary keys or, as long as none of them was written in this transaction, by the field that
            carries the model's index.
        expected: Field lookups as for ``filter()``: a plain name, ``__in`` or ``__lt``.
        fields: What to set; ``F`` expressions are fine.

    Returns:
        How many rows were changed.
    """
    if not is_document_store(rows.db):
        return rows.filter(**expected).update(**fields)
    # There a query may look at indexed fields only, and each index is paid for with every write.
    with transaction.atomic(using=rows.db):
        chosen = _choose(rows, expected)
        for row in chosen:
            QuerySet(type(row), using=rows.db).filter(pk=row.pk).update(**fields)
    return len(chosen)


def delete_if(rows: QuerySet[Any], expected: Mapping[str, Any]) -> int:
    """Delete those rows that are as expected; arguments and result as for ``update_if``."""
    if not is_document_store(rows.db):
        deleted, _ = rows.filter(**expected).delete()
        return deleted
    with transaction.atomic(using=rows.db):
        chosen = _choose(rows, expected)
        for row in chosen:
            row.delete(using=rows.db)
    return len(chosen)


def _choose(rows: QuerySet[Any], expected: Mapping[str, Any]) -> list[Model]:
    return [row for row in rows if all(_matches(row, *condition) for condition in expected.items())]


def _matches(row: Model, lookup: str, expected: Any) -> bool:
    name, _, kind = lookup.partition("__")
    return _LOOKUPS[kind](getattr(row, name), expected)
