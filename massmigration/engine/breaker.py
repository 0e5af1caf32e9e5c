"""The circuit breaker: a wrong operation stops after some hundred rows instead of filling the table of failures."""

from __future__ import annotations

from typing import Final

from massmigration import recorder
from massmigration.models import MigrationShard

DEFAULT_SHARE: Final = 0.1
"""The share of the visited objects that may fail if ``max_failures`` is not set."""

SMALLEST_BASE: Final = 1_000
"""A share is taken of at least this number of objects: one failure among the first three says little."""

LOOK_EVERY: Final = 10
"""After this number of its own failures a worker counts those of the others."""


class Breaker:
    """Counts the objects that a worker skips, and says when they are too many.

    The migration's ``max_failures`` is a number, a share below 1, or None for ``DEFAULT_SHARE``.
    """

    def __init__(self, max_failures: float | None, shard: MigrationShard, db_alias: str) -> None:
        self.max_failures = DEFAULT_SHARE if max_failures is None else max_failures
        self.shard = shard
        self.db_alias = db_alias
        self._failures = 0
        self._look_at = 1

    def record_failure(self) -> str:
        """Count one more failure, and return the sentence that ends the run, or an empty string."""
        self._failures += 1
        if self._failures < self._look_at and self._failures <= self._get_bound(0):
            return ""
        attempt_uuid = self.shard.attempt_uuid
        failures = recorder.count_open_failures(attempt_uuid, self.db_alias)
        self._failures, self._look_at = failures, failures + LOOK_EVERY
        if failures <= self._get_bound(0):
            return ""
        shards = recorder.get_shards(attempt_uuid, self.db_alias)
        visited = failures + sum(shard.processed for shard in shards)
        if failures <= self._get_bound(visited):
            return ""
        allowed = self.max_failures if isinstance(self.max_failures, int) else f"{self.max_failures:.1%} of them"
        count = f"{failures} of {visited} objects failed"
        return f"{count}, and max_failures allows {allowed}. Correct the operation and retry."

    def _get_bound(self, visited: int) -> float:
        """Return how many failures are allowed among the objects that were visited."""
        if isinstance(self.max_failures, int):
            return self.max_failures
        return self.max_failures * max(visited, SMALLEST_BASE)
