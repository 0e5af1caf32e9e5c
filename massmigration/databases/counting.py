"""Numbers of rows: counted exactly when that is quick, else estimated and marked as estimates."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django.db.models import QuerySet

COUNT_SECONDS: Final = 1.0
"""A count that takes longer is given up."""


class Count(NamedTuple):
    """A number of rows; None if it is not known."""

    number: int | None
    is_estimate: bool


def count_distinct(queryset: QuerySet[Any]) -> int:
    """Return how many different rows a queryset has."""
    if len(queryset.query.alias_map) > 1:  # a join may repeat rows
        queryset = queryset.values("pk").distinct()
    return queryset.count()
