"""Divides what is on Datastore or Firestore: key ranges for the workers, the middle of a range, the number of rows.

A bounded number of queries does for each, whatever the size of the table; each reads some keys and no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db.models import QuerySet

from massmigration.databases.base import BaseDatabase
from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.databases.documents.keys import StoreKeys
from massmigration.databases.documents.keyspace import KeySpace, get_keyspace
from massmigration.databases.documents.probing import PROBE_KEYS, Survey
from massmigration.databases.keys import KeyCodec
from massmigration.databases.ranges import KeyRange

EXACT_ROWS: Final = 1_000  # the maximum number of rows that are counted one by one
COUNT_PARTS: Final = 8  # a number of rows is known well enough when it would do for dividing them by this
COUNT_PROBES: Final = 32  # the most probes for the number of rows, after the first

PROBES_PER_RANGE: Final = 4  # the most further probes for each range
RANGE_PROBES: Final = 96  # the most further probes for all ranges together

LARGEST_OF: Final = 6  # how many ranges are compared for the largest
SIZE_PROBES: Final = 10  # the most probes for the size of each, after the first
CUT_PROBES: Final = 16  # the most further probes for the middle of the largest; one more looks at what lies after it

SAMPLE_PER_RANGE: Final = 32  # sampled keys for each range; the largest is about half as large again as the mean
LEAST_SAMPLE_PER_RANGE: Final = 16  # with fewer the ranges come out too uneven, and are found by probing
LARGEST_SAMPLE: Final = 1_000


class StoreRanges(BaseDatabase):
    """The part of a document store that looks at what a queryset finds there."""

    def count(self, queryset: QuerySet[Any], seconds: float = COUNT_SECONDS) -> Count:
        """Count at most a thousand rows, since that costs by the row.

        The number of queries is bounded, whatever ``seconds`` is.
        """
        reader, space = _open(queryset)
        if space is None:
            keys = reader.read(None, None, EXACT_ROWS + 1)
            return Count(len(keys), is_estimate=False) if len(keys) <= EXACT_ROWS else Count(None, is_estimate=True)
        survey = Survey(reader, space, EXACT_ROWS + 1)
        survey.refine(COUNT_PARTS, COUNT_PROBES)
        if survey.is_trusted:
            return Count(survey.rows, is_estimate=not survey.is_complete)
        return Count(None, is_estimate=True)

    def count_range(self, queryset: QuerySet[Any], keys: KeyRange, seconds: float) -> Count:
        """Count at most a thousand rows, and one more if there are more."""
        return Count(len(StoreKeys(queryset, keys).read(None, None, EXACT_ROWS + 1)), is_estimate=False)

    def find_bounds(self, queryset: QuerySet[Any], most: int, rows_per_range: int | None) -> list[Any]:
        """Divide the rows that the queryset finds about equally."""
        reader, space = _open(queryset)
        if most < 2 or space is None:
            return []
        survey = Survey(reader, space, EXACT_ROWS + 1)
        survey.refine(COUNT_PARTS, COUNT_PROBES)
        count = most if rows_per_range is None else max(1, min(most, survey.rows // rows_per_range))
        if count < 2:
            return []
        if not survey.is_complete:
            sample = reader.sample(min(SAMPLE_PER_RANGE * count, LARGEST_SAMPLE))
            if len(sample) >= LEAST_SAMPLE_PER_RANGE * count:
                sample.sort(key=space.get_orders)
                return space.keep_rising(sample[len(sample) * number // count] for number in range(1, count))
            survey.refine(count, min(PROBES_PER_RANGE * count, RANGE_PROBES))
        return survey.find_bounds(count)

    def find_middle(
        self, queryset: QuerySet[Any], ranges: Sequence[KeyRange], least_rows: int
    ) -> tuple[int, Any] | None:
        """Look at the first six ranges, and at the rows that the queryset finds there."""
        largest: tuple[int, int, Survey] | None = None
        for number, keys in enumerate(ranges[:LARGEST_OF]):
            reader, space = _open(queryset, keys)
            if space is None:
                return None
            survey = Survey(reader, space)
            survey.refine(2, SIZE_PROBES)
            size = survey.rows if survey.is_trusted else survey.keys_read
            if largest is None or size > largest[0]:
                largest = size, number, survey
        if largest is None:
            return None
        _, number, survey = largest
        survey.refine(2, CUT_PROBES)
        middles = survey.find_bounds(2) if survey.rows >= least_rows else []
        if not middles or len(survey.reader.read(middles[0], None, PROBE_KEYS)) < PROBE_KEYS:
            return None
        return number, middles[0]

    def find_largest(self, queryset: QuerySet[Any], after: Any) -> tuple[bool, Any]:
        """Search for the largest key, which only integers and UUIDs can be searched for.

        Looks further and further ahead until nothing lies there, and halves what is left. Each look reads some keys and
        ends the search if they are the last. Descending queries by key need another index, or are not possible.
        """
        reader, space = _open(queryset, KeyRange(after, None))
        if space is None or space.is_open:
            return False, None
        keys = reader.read(None, None, PROBE_KEYS)
        if len(keys) < PROBE_KEYS:
            return True, keys[-1] if keys else None
        largest, low, high = keys[-1], space.get_position(keys[-1]), space.highest
        step, is_near = 4 * max(PROBE_KEYS, low - space.get_position(keys[0])), True
        while low < high:
            place = min(low + step, high) if is_near else (low + high + 1) // 2
            keys = reader.read(space.get_key(place - 1), None, PROBE_KEYS)
            if not keys or space.get_position(keys[-1]) <= low:
                high, is_near = place - 1, False
                continue
            largest, low, step = keys[-1], max(space.get_position(keys[-1]), place), 4 * step
            if len(keys) < PROBE_KEYS:
                break
        return True, largest


def _open(queryset: QuerySet[Any], keys: KeyRange | None = None) -> tuple[StoreKeys, KeySpace | None]:
    reader = StoreKeys(queryset, keys)
    return reader, get_keyspace(KeyCodec(queryset.model), pads_integers=reader.pads_integers)
