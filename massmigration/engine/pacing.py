"""Adjusts the size of batches so that each takes its target time."""

from __future__ import annotations

from typing import Final

FIRST_SIZE: Final = 100
LARGEST_SIZE: Final = 20_000
LARGEST_LOADED: Final = 5_000
"""For batches of loaded objects: larger ones take memory, and are no faster (benchmarks/README.md)."""
LARGEST_WINDOW: Final = 100_000
GROWTH: Final = 1.25
QUICK_GROWTH: Final = 2.0
MEMORY: Final = 0.5
"""Weight of the newest batch in the decayed time per object."""


class Pacer:
    """How many objects the next batch of a shard has, and how many keys are looked at.

    The size follows the decayed time per object. It grows by a quarter at most, or doubles while a batch takes less
    than a quarter of the target, and is cut at once when a batch took much too long.

    Args:
        target_seconds: How long a batch should take.
        fixed_size: The author's ``batch_size``, which is then kept.
        first_size: The first size, such as the one that the shard's last worker had reached.
        first_rate: Objects per second, to be shown until the first batch is done.
        largest_size: Where the growth ends.
    """

    def __init__(
        self,
        target_seconds: float,
        fixed_size: int | None,
        first_size: int | None,
        first_rate: float = 0.0,
        largest_size: int = LARGEST_SIZE,
    ) -> None:
        self.target_seconds = target_seconds
        self.fixed_size = fixed_size
        self.largest_size = largest_size
        self.size = fixed_size or first_size or FIRST_SIZE
        self.window = max(self.size, FIRST_SIZE)
        self.rate = first_rate
        self._seconds_per_object: float | None = None

    def learn_batch(self, count: int, seconds: float) -> None:
        """Learn from a batch of ``count`` objects that took ``seconds`` from reading to commit."""
        if not count:
            return
        newest = max(seconds, 1e-6) / count
        old = self._seconds_per_object
        self._seconds_per_object = newest if old is None else MEMORY * newest + (1 - MEMORY) * old
        self.rate = 1 / self._seconds_per_object
        if self.fixed_size is None:
            growth = QUICK_GROWTH if seconds < self.target_seconds / 4 else GROWTH
            wanted = self.target_seconds / max(newest, self._seconds_per_object)
            # A batch that was small because the range ended says nothing about larger ones.
            ceiling = max(self.size, count) if count < self.size else self.size * growth
            self.size = int(max(1, min(wanted, ceiling + 1, self.largest_size)))
        self.window = max(self.window, self.size)

    def learn_window(self, is_full: bool, seconds: float) -> None:
        """Learn how long a look at a window of keys took, and whether it held as many matching rows as a batch."""
        if seconds > self.target_seconds / 2:
            self.window = max(self.window // 2, self.size)
        elif not is_full:
            self.window = min(self.window * 2, LARGEST_WINDOW)
        else:
            self.window = max(self.window // 2, self.size)
