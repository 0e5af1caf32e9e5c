"""Measures how fast a migration moves, from the counts of the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

MEMORY_SECONDS: Final = 15.0
SHORTEST_SECONDS: Final = 1.0


class Speedometer:
    """The rate of all workers together over the last seconds.

    A shard's own rate is that of its worker's last batches, and begins anew with each shard: too restless to read.
    """

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def note(self, count: int, now: float) -> None:
        """Learn a count.

        Args:
            count: Objects done by now; fewer than before means that another run is watched.
            now: A monotonic time, in seconds.
        """
        if self._counts and count < self._counts[-1][1]:
            self._counts.clear()
        self._counts.append((now, count))
        while len(self._counts) > 2 and now - self._counts[1][0] >= MEMORY_SECONDS:
            self._counts.popleft()

    def get_rate(self) -> float | None:
        """Return objects per second, or None if that cannot be said yet."""
        if len(self._counts) < 2:
            return None
        (began_at, first), (ended_at, last) = self._counts[0], self._counts[-1]
        if ended_at - began_at < SHORTEST_SECONDS or last == first:
            return None
        return (last - first) / (ended_at - began_at)
