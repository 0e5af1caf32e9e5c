"""Splits the key space: at the start into ranges for the workers, later the largest range that is left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.db import IntegrityError, NotSupportedError, ProgrammingError, connections, transaction
from django.db.models import QuerySet

from massmigration import recorder
from massmigration.conf import conf
from massmigration.databases.counting import Count, estimate_table
from massmigration.databases.documents.ranges import find_stored_bounds, find_stored_cut
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.transactions import is_document_store, run_write
from massmigration.definitions.base import QuerysetMigration
from massmigration.engine.growth import note_end
from massmigration.engine.leases import is_live
from massmigration.engine.querysets import KeyRange, Table
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard
from massmigration.recorder import Part

ROWS_PER_SHARD: Final = 2_000
"""Fewer rows than this are not worth a shard of their own."""

SAMPLE_LIMIT: Final = 2_000_000
"""Up to so many rows a bound is found by walking the index of the primary key."""

STEPS: Final = (200_000, 50_000, 10_000, 2_000)
"""How far ahead of a cursor a range of keys that cannot be computed is cut; the first that lies within it."""


class Plan(NamedTuple):
    """The parts of an attempt's first pass, and how many objects they hold."""

    parts: list[Part]
    size: Count


def plan_pass(migration: QuerysetMigration, table: Table) -> list[Part]:
    """Return the ranges of a pass over the table, the last of which knows where the table ends.

    Raises:
        InvalidDefinition: The migration is bounded, but it cannot be found where the table ends.
    """
    parts, end = plan_ranges(migration, table), note_end(table)
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
    if is_document_store(table.alias):
        keys = find_stored_bounds(table, wanted, rows_per_shard)
    else:
        rows = estimate_table(table.keys)
        if rows_per_shard is not None and rows is not None:
            wanted = max(1, min(wanted, rows // rows_per_shard))
        keys = _find_bounds(table, wanted, rows)
    bounds = [table.codec.encode(key) for key in keys]
    lowers, uppers = [None, *bounds], [*bounds, None]
    return [Part(lower, upper) for lower, upper in zip(lowers, uppers, strict=True)]


def split_largest(table: Table, shards: Sequence[MigrationShard]) -> MigrationShard | None:
    """Cut the largest range that another worker is at in two, and return the new shard for an idle worker.

    Args:
        table: The rows that the migration goes through, in the database that is migrated.
        shards: All shards of the attempt.

    Returns:
        The new shard; None if no range is worth it.
    """
    db_alias = table.alias
    candidates = [
        shard for shard in shards if shard.kind == MigrationShard.RANGE and shard.payload is None and is_live(shard)
    ]
    found = _find_cut(table, candidates)
    if found is None:
        return None
    shard, middle = found
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


def _find_cut(table: Table, shards: list[MigrationShard]) -> tuple[MigrationShard, Any] | None:
    """Return the shard of which most is left, and a key that cuts that; None if nothing is worth it."""
    if is_document_store(table.alias):
        shards = sorted(shards, key=lambda shard: shard.processed)  # the first few are looked at
        found = find_stored_cut(table, [_get_rest(table, shard) for shard in shards], ROWS_PER_SHARD)
        return None if found is None else (shards[found[0]], found[1])
    best: tuple[int, MigrationShard, Any] | None = None
    for shard in shards:
        middle, size = _find_middle(table, _get_rest(table, shard))
        if middle is not None and (best is None or size > best[0]):
            best = size, shard, middle
    return None if best is None else best[1:]


def _get_rest(table: Table, shard: MigrationShard) -> KeyRange:
    after = shard.cursor if shard.cursor is not None else shard.lower
    return KeyRange(
        None if after is None else table.codec.decode(after),
        None if shard.upper is None else table.codec.decode(shard.upper),
    )


def _find_bounds(table: Table, count: int, rows: int | None) -> list[Any]:
    if count < 2:
        return []
    smallest, largest = _find_ends(table, KeyRange(None, None))
    if smallest is None:
        return []
    if table.codec.can_compute(connections[table.alias].vendor):
        return table.codec.split(smallest, largest, count)
    if rows is not None and rows <= SAMPLE_LIMIT:
        step = max(1, rows // count)
        bounds = []
        after: Any = None
        for _ in range(count - 1):
            after = table.find_window_end(KeyRange(after, None), step)
            if after is None or after == largest:
                break
            bounds.append(after)
        return bounds
    return _sample_bounds(table, count)


def _sample_bounds(table: Table, count: int) -> list[Any]:
    """Find bounds in a sample of the table's pages, where the database gives one; else leave it whole."""
    connection = connections[table.alias]
    model = table.keys.model
    columns = get_key_fields(model)
    if connection.vendor != "postgresql" or len(columns) > 1 or not table.codec.is_plain:
        return []
    quote = connection.ops.quote_name
    pk = quote(columns[0].column or "")
    keys: list[Any] = []
    # Views and foreign tables have no pages of their own.
    with (
        suppress(NotSupportedError, ProgrammingError),
        transaction.atomic(using=table.alias),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            f"SELECT {pk} FROM {quote(model._meta.db_table)} TABLESAMPLE SYSTEM (0.1) ORDER BY {pk} LIMIT 100000"
        )
        keys = [columns[0].to_python(row[0]) for row in cursor.fetchall()]
    if len(keys) < count:
        return []
    return list(dict.fromkeys(keys[len(keys) * number // count] for number in range(1, count)))


def _find_ends(table: Table, keys: KeyRange) -> tuple[Any, Any]:
    rows: QuerySet[Any] = keys.narrow(table.keys)
    first = rows.order_by("pk").values_list("pk")[:1]
    last = rows.order_by("-pk").values_list("pk")[:1]
    ends = [row[0] for row in (*first, *last)]
    return (ends[0], ends[-1]) if len(ends) == 2 else (None, None)


def _find_middle(table: Table, keys: KeyRange) -> tuple[Any, int]:
    """Return a key that cuts the range, and a number that says how large the range is."""
    if table.codec.can_compute(connections[table.alias].vendor):
        first, last = _find_ends(table, keys)
        if first is None:
            return None, 0
        to_integer = table.codec.kinds[0].to_integer
        assert to_integer is not None
        size = to_integer(last) - to_integer(first)
        middles = table.codec.split(first, last, 2)
        if not middles or table.find_window_end(KeyRange(keys.after, last), ROWS_PER_SHARD) is None:
            return None, 0
        return middles[0], size
    for step in STEPS:
        middle = table.find_window_end(keys, step)
        if middle is not None and table.find_window_end(KeyRange(middle, keys.upto), STEPS[-1] // 2) is not None:
            return middle, step
    return None, 0
