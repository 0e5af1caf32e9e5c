"""The open end of the last key range: how far the engine follows rows that come in, or that the operation makes.

The largest key is noted when the range is planned. When the range reaches it, the largest key of that moment is noted:
an extension. On a site that makes rows more slowly than they are migrated, extensions get smaller. When an operation
copies its rows, or moves them to larger keys, they do not.
"""

from __future__ import annotations

import time
from typing import Final, TypedDict

from massmigration import states
from massmigration.databases.ranges import KeyRange
from massmigration.databases.tables import Table
from massmigration.engine.refusals import FinishRefused
from massmigration.models import MigrationShard

MAX_EXTENSIONS: Final = 5
"""How many extensions there may be of which none is smaller than the one before."""

COUNT_SECONDS: Final = 5.0
LONGEST_LOOK_SECONDS: Final = 1.0
SHORTEST_LOOK_SECONDS: Final = 0.1


class Extension(TypedDict):
    """What ``MigrationShard.extension`` holds."""

    planned: str | None  # The largest key when the range was planned, encoded; None if there was none.
    largest: str | None  # The key that the range goes to for now; None if there is none.
    rows: int | None  # How many rows the last extension had; None before the first.
    count: int  # How many extensions there were in a row of which none was smaller than the one before.
    noted_at: float  # When ``largest`` was noted, in seconds since 1970.


class RowsAhead(Exception):
    """Extensions of a range do not get smaller; holds the one that would be next, and how long the last one took."""

    def __init__(self, extension: Extension, seconds: float) -> None:
        super().__init__(extension)
        self.extension = extension
        self.seconds = seconds


def learn_end(table: Table) -> Extension | None:
    """Return what the last range of a table begins with; None if the largest key cannot be found.

    Not every database can find the largest of all types of keys.
    """
    is_known, largest = table.database.find_largest(table.queryset, None)
    if not is_known:
        return None
    encoded = None if largest is None else table.codec.encode(largest)
    return Extension(planned=encoded, largest=encoded, rows=None, count=0, noted_at=time.time())


def find_upper(table: Table, extension: Extension | None, upper: str) -> str:
    """Return where a bounded range ends that was cut from the last one, perhaps after the key that it is bounded by.

    ``extension`` is what the last range had when it was cut at ``upper``; None for a range that was not cut from it.
    """
    if extension is None or extension["planned"] is None:
        return upper
    # Only the database can compare keys. If none lies between the two, they mean the same.
    between = KeyRange(table.codec.decode(extension["planned"]), table.codec.decode(upper))
    return upper if table.find_window_end(between, 1) is None else extension["planned"]


def extend(table: Table, extension: Extension) -> Extension | None:
    """Return the next extension of a range that has reached its largest key; None if no row lies ahead.

    Raise RowsAhead if there were nearly too many of which none was smaller than the one before.
    """
    after = None if extension["largest"] is None else table.codec.decode(extension["largest"])
    _, largest = table.database.find_largest(table.queryset, after)
    if largest is None:
        return None
    rows = _count(table, KeyRange(after, largest), extension["rows"])
    if rows == 0:
        return None
    is_smaller = extension["rows"] is not None and rows < extension["rows"]
    count, now = 1 if is_smaller else extension["count"] + 1, time.time()
    following = Extension(
        planned=extension["planned"], largest=table.codec.encode(largest), rows=rows, count=count, noted_at=now
    )
    if count >= MAX_EXTENSIONS:
        raise RowsAhead(following, max(0.0, now - extension["noted_at"]))
    return following


def settle(table: Table, shard: MigrationShard, ahead: RowsAhead) -> Extension:
    """Return how a range continues whose extensions do not get smaller, or raise FinishRefused if the operation is why.

    For a moment nothing is worked: if rows come in all the same, as many as in the time of the last extension, then
    others make them. They may also have stopped just now: so another extension is worked, which is smaller then, and
    only after a second look is the operation to blame. To be called outside of a transaction.
    """
    extension = ahead.extension
    rows, largest = extension["rows"] or 0, extension["largest"]
    assert largest is not None
    seconds = min(max(ahead.seconds, SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS)
    _, now_largest = table.database.find_largest(table.queryset, table.codec.decode(largest))
    before = table.codec.decode(largest) if now_largest is None else now_largest
    time.sleep(seconds)
    expected = rows * seconds / max(ahead.seconds, seconds)
    _, largest_then = table.database.find_largest(table.queryset, before)
    arrived = 0 if largest_then is None else _count(table, KeyRange(before, largest_then), None)
    if arrived and arrived * 2 >= expected:
        return {**extension, "count": 1}
    if extension["count"] <= MAX_EXTENSIONS:
        return extension
    raise FinishRefused(
        states.NOT_EMPTY,
        f"{shard.key} makes or moves rows ahead of its cursor: behind the largest key lay new rows {MAX_EXTENSIONS} "
        f"times, never fewer than the time before, and now {rows:,} more. Set bounded = True to end at the largest key "
        "of when the run was planned, or correct the operation, and retry.",
    )


def forgive(extension: Extension) -> Extension:
    """Return the extension without what counts against it, for the time after a retry."""
    return {**extension, "rows": None, "count": 0}


def _count(table: Table, keys: KeyRange, at_least: int | None) -> int:
    """Return how many rows match; of an estimate, not less than ``at_least``, since it proves nothing by itself."""
    count = table.database.count_range(table.queryset, keys, COUNT_SECONDS)
    number = count.number or 0
    return max(number, at_least or 1) if count.is_estimate else number
