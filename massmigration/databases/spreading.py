"""Counts the rows of SQL tables and divides them: by arithmetic, along the index of the primary key, or by a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import OperationalError
from django.db.models import F, QuerySet

from massmigration.databases.base import BaseDatabase
from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.keys import KeyCodec
from massmigration.databases.locking import list_keys
from massmigration.databases.ranges import KeyRange, find_window_end, get_all_rows

SAMPLE_LIMIT: Final = 2_000_000
"""The maximum number of rows for which bounds are found by walking the index of the primary key."""

STEPS: Final = (200_000, 50_000, 10_000, 2_000)
"""How far after a cursor a range of keys that cannot be computed is cut; the first that lies within it."""


class SqlRanges(BaseDatabase):
    """The part of an SQL database that looks at whole tables, whatever the filter of a queryset is."""

    # Are UUIDs in the order of their numbers? MariaDB orders its own type by the last bytes first:
    # https://mariadb.com/docs/server/reference/data-types/string-data-types/uuid-data-type
    orders_uuids: bool = False

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Let statements take as long as they do: not every database can be told to give up."""
        yield

    def count(self, queryset: QuerySet[Any], seconds: float = COUNT_SECONDS) -> Count:
        """Count the distinct rows of a queryset, or estimate them if that takes longer than ``seconds``."""
        is_joined = len(queryset.query.alias_map) > 1  # which may repeat rows
        try:
            with self.limit_time(seconds):
                number = queryset.values("pk").distinct().count() if is_joined else queryset.count()
                return Count(number, is_estimate=False)
        except OperationalError as error:
            if not self.is_timed_out(error):
                raise
        return Count(self.estimate(queryset), is_estimate=True)

    def count_range(self, queryset: QuerySet[Any], keys: KeyRange, seconds: float) -> Count:
        """Count the rows of a queryset in a range of keys; arguments as for ``count``."""
        return self.count(keys.narrow(queryset), seconds)

    def estimate(self, queryset: QuerySet[Any]) -> int | None:
        """Return about how many rows a queryset has, without reading them; None if that is not known."""
        return None

    def estimate_table(self, rows: QuerySet[Any]) -> int | None:
        """Return about how many rows a table has, given all of them; None if that is not known."""
        return self.count(rows, COUNT_SECONDS / 4).number

    def computes(self, codec: KeyCodec) -> bool:
        """Return whether a range of a model's keys can be cut by arithmetic, in the order of this database."""
        return codec.can_compute and (codec.types[0].python_type is int or self.orders_uuids)

    def sample_keys(self, rows: QuerySet[Any]) -> list[Any]:
        """Return sorted keys picked at random out of a large table; none where that is not to be had."""
        return []

    def find_bounds(self, queryset: QuerySet[Any], most: int, rows_per_range: int | None) -> list[Any]:
        """Divide the whole table into about ``most`` ranges, or fewer."""
        rows, codec = get_all_rows(queryset), KeyCodec(queryset.model)
        row_count = self.estimate_table(rows)
        if rows_per_range is not None and row_count is not None:
            most = max(1, min(most, row_count // rows_per_range))
        smallest, largest = _find_ends(rows, KeyRange(None, None)) if most > 1 else (None, None)
        if smallest is None:
            return []
        if self.computes(codec):
            return codec.split(smallest, largest, most)
        if row_count is not None and row_count <= SAMPLE_LIMIT:
            return _walk(rows, most, max(1, row_count // most), largest)
        keys = self.sample_keys(rows)
        if len(keys) < most:
            return []
        return list(dict.fromkeys(keys[len(keys) * number // most] for number in range(1, most)))

    def find_middle(
        self, queryset: QuerySet[Any], ranges: Sequence[KeyRange], least_rows: int
    ) -> tuple[int, Any] | None:
        """Cut the largest range of the whole table."""
        rows, codec = get_all_rows(queryset), KeyCodec(queryset.model)
        computes = self.computes(codec)
        best: tuple[int, int, Any] | None = None
        for number, keys in enumerate(ranges):
            middle, size = _compute_middle(codec, rows, keys, least_rows) if computes else _step_ahead(rows, keys)
            if middle is not None and (best is None or size > best[0]):
                best = size, number, middle
        return None if best is None else best[1:]

    def find_largest(self, queryset: QuerySet[Any], after: Any) -> tuple[bool, Any]:
        """Look at the whole table."""
        columns = [F(field.attname).desc() for field in get_key_fields(queryset.model)]
        found = list_keys(KeyRange(after, None).narrow(get_all_rows(queryset)).order_by(*columns)[:1])
        return True, found[0] if found else None


def _walk(rows: QuerySet[Any], count: int, step: int, largest: Any) -> list[Any]:
    bounds: list[Any] = []
    after: Any = None
    for _ in range(count - 1):
        after = find_window_end(rows, KeyRange(after, None), step)
        if after is None or after == largest:
            break
        bounds.append(after)
    return bounds


def _compute_middle(codec: KeyCodec, rows: QuerySet[Any], keys: KeyRange, least_rows: int) -> tuple[Any, int]:
    """Return a key that cuts the range, and a number that says how large the range is."""
    first, last = _find_ends(rows, keys)
    if first is None:
        return None, 0
    to_integer = codec.types[0].to_integer
    assert to_integer is not None
    middles = codec.split(first, last, 2)
    if not middles or find_window_end(rows, KeyRange(keys.after, last), least_rows) is None:
        return None, 0
    return middles[0], to_integer(last) - to_integer(first)


def _step_ahead(rows: QuerySet[Any], keys: KeyRange) -> tuple[Any, int]:
    for step in STEPS:
        middle = find_window_end(rows, keys, step)
        if middle is not None and find_window_end(rows, KeyRange(middle, keys.upto), STEPS[-1] // 2) is not None:
            return middle, step
    return None, 0


def _find_ends(rows: QuerySet[Any], keys: KeyRange) -> tuple[Any, Any]:
    """Return the smallest and the largest key of a table in a range; None and None if it has none there."""
    found: QuerySet[Any] = keys.narrow(rows)
    first = found.order_by("pk").values_list("pk")[:1]
    last = found.order_by("-pk").values_list("pk")[:1]
    ends = [row[0] for row in (*first, *last)]
    return (ends[0], ends[-1]) if len(ends) == 2 else (None, None)
