"""Divides the key range of an SQL table: by arithmetic, along the index of the primary key, or by a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from django.db.models import QuerySet

from massmigration.databases.keys import KeyCodec
from massmigration.databases.ranges import KeyRange, find_ends, find_window_end

SAMPLE_LIMIT: Final = 2_000_000
"""The maximum number of rows for which bounds are found by walking the index of the primary key."""

STEPS: Final = (200_000, 50_000, 10_000, 2_000)
"""How far after a cursor a range of keys that cannot be computed is cut; the first that lies within it."""


def find_bounds(
    rows: QuerySet[Any],
    count: int,
    row_count: int | None,
    *,
    computes: bool,
    sample: Callable[[QuerySet[Any]], list[Any]],
) -> list[Any]:
    """Return keys that divide a table into about ``count`` ranges.

    Args:
        rows: All rows of the table.
        count: How many ranges.
        row_count: About how many rows there are, if that is known.
        computes: Whether the keys are cut by arithmetic.
        sample: Returns sorted keys picked at random, or none.
    """
    if count < 2:
        return []
    smallest, largest = find_ends(rows, KeyRange(None, None))
    if smallest is None:
        return []
    if computes:
        return KeyCodec(rows.model).split(smallest, largest, count)
    if row_count is not None and row_count <= SAMPLE_LIMIT:
        return _walk(rows, count, max(1, row_count // count), largest)
    keys = sample(rows)
    if len(keys) < count:
        return []
    return list(dict.fromkeys(keys[len(keys) * number // count] for number in range(1, count)))


def _walk(rows: QuerySet[Any], count: int, step: int, largest: Any) -> list[Any]:
    bounds: list[Any] = []
    after: Any = None
    for _ in range(count - 1):
        after = find_window_end(rows, KeyRange(after, None), step)
        if after is None or after == largest:
            break
        bounds.append(after)
    return bounds


def find_middle(
    rows: QuerySet[Any], ranges: Sequence[KeyRange], least_rows: int, *, computes: bool
) -> tuple[int, Any] | None:
    """Return which of some ranges is the largest, and a key that cuts it; None if none is worth cutting.

    Arguments are those of ``BaseDatabase.find_middle``, with all rows of the table, and of ``find_bounds``.
    """
    best: tuple[int, int, Any] | None = None
    for number, keys in enumerate(ranges):
        middle, size = _compute_middle(rows, keys, least_rows) if computes else _step_ahead(rows, keys)
        if middle is not None and (best is None or size > best[0]):
            best = size, number, middle
    return None if best is None else best[1:]


def _compute_middle(rows: QuerySet[Any], keys: KeyRange, least_rows: int) -> tuple[Any, int]:
    """Return a key that cuts the range, and a number that says how large the range is."""
    first, last = find_ends(rows, keys)
    if first is None:
        return None, 0
    codec = KeyCodec(rows.model)
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
