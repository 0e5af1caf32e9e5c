"""VisitingMigration: items that are numbers; each visit leaves an event, wherever the worker lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from massmigration.definitions.custom import CustomMigration
from massmigration.models import MigrationEvent

VISIT: Final = "visit"


class VisitingMigration(CustomMigration):
    """Visits ``count`` numbers from each of ``firsts`` on."""

    firsts: tuple[int, ...] = (0,)
    count: int = 1

    def get_shards(self, db_alias: str) -> list[int]:
        """Return the number that each shard begins with."""
        return list(self.firsts)

    def get_items(self, shard: int, cursor: int | None, db_alias: str) -> Iterator[tuple[int, int]]:
        """Yield the numbers after the cursor."""
        for number in range(shard if cursor is None else cursor + 1, shard + self.count):
            yield number, number

    def get_total(self, shard: int, db_alias: str) -> int:
        """Return how many numbers a shard has."""
        return self.count

    def operation(self, item: int, db_alias: str) -> None:
        """Leave an event that says that the number was visited."""
        MigrationEvent.objects.using(db_alias).create(key=self.key, action=VISIT, detail=str(item))

    @classmethod
    def get_all(cls) -> list[int]:
        """Return all numbers, sorted."""
        return sorted(first + step for first in cls.firsts for step in range(cls.count))


def get_visits(key: str, db_alias: str) -> list[int]:
    """Return the numbers that were visited, sorted, each as often as it was."""
    events = MigrationEvent.objects.using(db_alias).filter(key=key)
    return sorted(int(event.detail) for event in events if event.action == VISIT)
