"""Writes to rows that are still as expected, in the way of their database: on SQL one UPDATE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from massmigration.databases.registry import get_database


def update_if(rows: QuerySet[Any], expected: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    """Set fields of those rows that are as expected; arguments and result as for ``BaseDatabase.update_if``."""
    return get_database(rows.db).update_if(rows, expected, fields)


def delete_if(rows: QuerySet[Any], expected: Mapping[str, Any]) -> int:
    """Delete those rows that are as expected; arguments and result as for ``BaseDatabase.delete_if``."""
    return get_database(rows.db).delete_if(rows, expected)
