"""Ranges of keys of one table."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db.models import QuerySet

from massmigration.databases.keyfilters import is_after, is_upto
from massmigration.databases.locking import list_keys


class KeyRange(NamedTuple):
    """A range of decoded keys; None is open."""

    after: Any
    upto: Any

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the queryset's rows within the range."""
        if self.after is not None:
            queryset = queryset.filter(is_after(queryset.model, self.after))
        if self.upto is not None:
            queryset = queryset.filter(is_upto(queryset.model, self.upto))
        return queryset


def get_all_rows(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return all rows of a queryset's table."""
    return QuerySet(queryset.model, using=queryset.db)


def find_window_end(rows: QuerySet[Any], keys: KeyRange, window: int) -> Any:
    """Return the key at which a window of this many keys ends, or None if the range ends before.

    ``rows`` are all rows of a table, so that nothing but the index of the primary key is read.
    """
    ahead = keys.narrow(rows).order_by("pk")
    found = list_keys(ahead[window - 1 : window])
    return found[0] if found else None
