"""Items that take their time, so that a person can interfere."""

from __future__ import annotations

import time

from massmigration.testing.visits import VisitingMigration


class Migration(VisitingMigration):
    """Visit eighty items, two at a time."""

    firsts = (0, 100)
    count = 40
    batch_size = 2

    def operation(self, item: int, db_alias: str) -> None:
        """Visit the item after a moment."""
        time.sleep(0.03)
        super().operation(item, db_alias)
