"""CustomMigration: items of any kind, from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from massmigration.definitions.base import WorkedMigration


class CustomMigration(WorkedMigration):
    """A migration over items that are not rows: lines of a file, pages of an API, objects in a bucket."""

    def get_shards(self, db_alias: str) -> Iterable[Any]:
        """Return the parts that can be worked on independently of each other; called once per attempt.

        Args:
            db_alias: The database that is migrated.

        Returns:
            JSON values, such as ``["a.csv", "b.csv"]``. The default is one shard, ``[None]``.
        """
        return [None]

    def get_items(self, shard: Any, cursor: Any, db_alias: str) -> Iterator[tuple[Any, Any]]:
        """Yield the items of a shard that come after the cursor, always in the same order.

        Args:
            shard: One of the values that ``get_shards`` returned.
            cursor: The cursor of the last item that is done; None at the beginning.
            db_alias: The database that is migrated.

        Yields:
            ``(cursor, item)``, where the cursor is a JSON value that no other item of the shard has.
        """
        raise NotImplementedError(f"{self.key} has no get_items(). Write it.")

    def operation(self, item: Any, db_alias: str) -> None:
        """Migrate one item.

        Args:
            item: What ``get_items`` yielded.
            db_alias: The database that is migrated.
        """
        raise NotImplementedError(f"{self.key} has no operation(). Write it.")

    def operation_many(self, items: list[Any], db_alias: str) -> None:
        """Migrate the items of one batch; the default calls ``operation`` for each.

        Args:
            items: What ``get_items`` yielded, at most a batch of it.
            db_alias: The database that is migrated.
        """
        for item in items:
            self.operation(item, db_alias)

    def get_total(self, shard: Any, db_alias: str) -> int | None:
        """Return how many items the shard has, or None if that is not known.

        Args:
            shard: One of the values that ``get_shards`` returned.
            db_alias: The database that is migrated.
        """
        return None
