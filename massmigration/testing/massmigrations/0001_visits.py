"""Sixty items in three shards."""

from __future__ import annotations

from massmigration.testing.visits import VisitingMigration


class Migration(VisitingMigration):
    """Visit sixty items, five at a time."""

    firsts = (0, 100, 200)
    count = 20
    batch_size = 5
