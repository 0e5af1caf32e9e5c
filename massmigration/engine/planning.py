"""The first step of an attempt: split the work into shards, once."""

from __future__ import annotations

from typing import Any, Final

from massmigration import record_cache, recorder, states
from massmigration.conf import conf
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration, launching_attempt
from massmigration.engine.kinds import get_kind
from massmigration.engine.kinds.base import Kind
from massmigration.engine.leaving import Rest, Stopped
from massmigration.engine.methods import call
from massmigration.models import MigrationShard
from massmigration.recorder import Author, Part

TURN_SECONDS: Final = 5.0
"""How often a migration checks whether it is its turn."""


def run_plan(shard: MigrationShard, migration: BaseMigration, db_alias: str, author: Author) -> None:
    """Make the range shards of an attempt and move its record to RUNNING, in one transaction, or call its ``launch()``.

    Raises:
        FenceLost: Another worker planned; nothing was written.
        Stopped: The run was paused or cancelled before its ``launch()``.
        Rest: Too many others run; nothing was written.
    """
    _await_turn(shard, db_alias)
    kind = get_kind(migration)
    if kind.is_launched:
        run_write(db_alias, lambda: _begin(shard, kind, db_alias, author))
        token = launching_attempt.set(shard.attempt_uuid)
        try:
            call(migration, "launch", db_alias)
        finally:
            launching_attempt.reset(token)
        run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).finish_shard(shard))
        return
    parts, about = _plan(kind, db_alias)

    def write() -> None:
        recorder.ShardRecorder(db_alias).finish_shard(shard)
        recorder.ShardMaker(db_alias).add_ranges(shard.attempt_uuid, shard.key, parts)
        recorder.update_attempt(shard.attempt_uuid, db_alias, **about)
        _move(shard, db_alias, author)

    run_write(db_alias, write)


def _plan(kind: Kind, db_alias: str) -> tuple[list[Part], dict[str, Any]]:
    """Return the parts of the work, and what the attempt keeps of the plan."""
    purpose = kind.get_purpose(db_alias)
    plan = kind.plan(db_alias)
    return plan.parts, {
        "total": plan.size.number,
        "total_is_estimate": plan.size.is_estimate,
        "until_empty": kind.is_until_empty(db_alias),
        "planned_for": purpose,
    }


def _move(shard: MigrationShard, db_alias: str, author: Author) -> None:
    _await_turn(shard, db_alias, lock=True)
    recorder.move(shard.key, db_alias, "begin", author, of_attempt=shard.attempt_uuid)


def _await_turn(shard: MigrationShard, db_alias: str, *, lock: bool = False) -> None:
    """Raise Rest while as many others run as ``MASSMIGRATION_MAX_RUNNING`` allows."""
    allowed = conf.max_running
    if not allowed:
        return
    others = [key for key in recorder.get_running(db_alias, lock=lock) if key != shard.key]
    if len(others) >= allowed:
        raise Rest(TURN_SECONDS, f"its turn, behind {' and '.join(others)}")


def _begin(shard: MigrationShard, kind: Kind, db_alias: str, author: Author) -> None:
    """Move the record to RUNNING, or raise Stopped if it was paused or cancelled a moment ago."""
    recorder.update_attempt(shard.attempt_uuid, db_alias, planned_for=kind.get_purpose(db_alias))
    _move(shard, db_alias, author)
    standing = record_cache.read_standing(shard.key, db_alias)
    if standing.status not in states.ACTIVE or standing.attempt_uuid != shard.attempt_uuid:
        raise Stopped(f"{shard.key} was stopped before its launch().")
