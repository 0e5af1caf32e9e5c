"""Splits the key space: at the start into ranges for the workers, later the largest range that is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from django.db import IntegrityError

from massmigration import recorder
from massmigration.conf import conf
from massmigration.databases.counting import Count
from massmigration.databases.tables import Table
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import QuerysetMigration
from massmigration.engine.growth import learn_end
from massmigration.engine.leases import is_live
from massmigration.engine.tables import get_rest
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard
from massmigration.recorder import Part

ROWS_PER_SHARD: Final = 2_000
"""Fewer rows than this are not worth a shard."""


class Plan(NamedTuple):
    """The parts of an attempt's first pass, and how many objects they hold."""

    parts: list[Part]
    size: Count


def plan_pass(migration: QuerysetMigration, table: Table) -> list[Part]:
    """Return the ranges of a pass over the table, the last of which knows where the table ends."""
    parts, end = plan_ranges(migration, table), learn_end(table)
    if end is None and migration.bounded:
        raise InvalidDefinition(
            f"{migration.key} is bounded, but on database '{table.alias}' the largest key of "
            f"{table.keys.model._meta.label} cannot be found. Leave bounded out, and filter for what was there before.",
            key=migration.key,
            db_alias=table.alias,
        )
    return [*parts[:-1], parts[-1]._replace(extension=end)]


def plan_ranges(migration: QuerysetMigration, table: Table) -> list[Part]:
    """Return ranges that together cover every key there is, the first and the last of them open-ended."""
    wanted = 1 if migration.serial else migration.shard_count or conf.shard_count
    rows_per_shard = ROWS_PER_SHARD if migration.shard_count is None else None
    bounds = [table.codec.encode(key) for key in table.database.find_bounds(table.queryset, wanted, rows_per_shard)]
    lowers, uppers = [None, *bounds], [*bounds, None]
    return [Part(lower, upper) for lower, upper in zip(lowers, uppers, strict=True)]


def split_largest(table: Table, shards: Sequence[MigrationShard]) -> MigrationShard | None:
    """Cut the largest range that another worker is working on in two; return the new shard, if one was worth it."""
    db_alias = table.alias
    candidates = [
        shard for shard in shards if shard.kind == MigrationShard.RANGE and shard.payload is None and is_live(shard)
    ]
    candidates.sort(key=lambda shard: shard.processed)  # some databases look at the first few only
    rests = [get_rest(table, shard) for shard in candidates]
    found = table.database.find_middle(table.queryset, rests, ROWS_PER_SHARD)
    if found is None:
        return None
    shard, middle = candidates[found[0]], found[1]
    same_pass = [
        other.number
        for other in shards
        if other.kind == MigrationShard.RANGE and other.pass_number == shard.pass_number
    ]
    number, cut_at = max(same_pass) + 1, table.codec.encode(middle)
    try:
        return run_write(db_alias, lambda: recorder.ShardMaker(db_alias).split_shard(shard, cut_at, number))
    except IntegrityError:  # another idle worker took this number a moment ago
        return None
