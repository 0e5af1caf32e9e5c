"""Whether another pass looks for rows that were added after the cursors had passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from massmigration import recorder, states
from massmigration.databases.counting import Count
from massmigration.databases.tables import Table
from massmigration.definitions.base import QuerysetMigration
from massmigration.engine.accepted import count_accepted
from massmigration.engine.refusals import FinishRefused
from massmigration.engine.sharding import plan_pass
from massmigration.engine.tables import is_until_empty
from massmigration.models import MigrationShard
from massmigration.recorder import Part

MAX_PASSES: Final = 5
"""The maximum number of passes over a table; a site that keeps making rows has to be fixed first."""

LAST_PASS: Final = "last_pass"
"""Parameter of an attempt for which a person asked for more passes than that, by a retry."""


def find_next_pass(
    migration: QuerysetMigration, table: Table, shard: MigrationShard, ranges: Sequence[MigrationShard], db_alias: str
) -> tuple[list[Part], str]:
    """Return the parts of another pass, or none and a warning if something is left that no pass would take.

    ``shard`` is the finish shard of the last pass, ``ranges`` are the shards of all passes. Raise FinishRefused if
    there were too many passes.
    """
    if not is_until_empty(migration, table):
        return [], ""
    count = table.database.count(table.queryset)
    if count == Count(0, is_estimate=False):
        return [], ""
    if not count.is_estimate and count.number == count_accepted(table, shard.attempt_uuid, db_alias):
        return [], ""
    left_matching = sum(other.left_matching for other in ranges)
    visited = sum(other.processed for other in ranges if other.pass_number == shard.pass_number)
    if migration.until_empty is None and left_matching:
        return [], (
            f"{left_matching} or more rows still match the queryset after their visit, so the table was not gone over "
            "again for rows that came in meanwhile. Set until_empty if they have to be caught."
        )
    if count.is_estimate and shard.pass_number > 1 and not visited:
        return [], ""
    attempt = recorder.get_attempt(shard.attempt_uuid, db_alias)
    if attempt is not None and shard.pass_number >= attempt.parameters.get(LAST_PASS, MAX_PASSES):
        raise FinishRefused(
            states.NOT_EMPTY,
            f"The queryset still finds rows after {shard.pass_number} passes. Correct the operation, or what keeps "
            "making such rows, and retry.",
        )
    return plan_pass(migration, table), ""
