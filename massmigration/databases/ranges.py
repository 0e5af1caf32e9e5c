"""Ranges of keys of one table, and what the index of its primary key tells about them."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db.models import F, QuerySet

from massmigration.databases.keyfilters import get_key_fields, is_after, is_upto
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

    Args:
        rows: All rows of a table, so that nothing but the index of the primary key is read.
        keys: Where to look.
        window: How many keys.
    """
    ahead = keys.narrow(rows).order_by("pk")
    found = list_keys(ahead[window - 1 : window])
    return found[0] if found else None


def find_last(rows: QuerySet[Any], keys: KeyRange) -> Any:
    """Return the largest key of a table in a range, or None if it has none there; not on document stores."""
    columns = [F(field.attname).desc() for field in get_key_fields(rows.model)]
    found = list_keys(keys.narrow(rows).order_by(*columns)[:1])
    return found[0] if found else None


def find_ends(rows: QuerySet[Any], keys: KeyRange) -> tuple[Any, Any]:
    """Return the smallest and the largest key of a table in a range; None and None if it has none there."""
    found: QuerySet[Any] = keys.narrow(rows)
    first = found.order_by("pk").values_list("pk")[:1]
    last = found.order_by("-pk").values_list("pk")[:1]
    ends = [row[0] for row in (*first, *last)]
    return (ends[0], ends[-1]) if len(ends) == 2 else (None, None)
