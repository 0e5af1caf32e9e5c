"""Workers that are lost in a row at the same place: objects are tried one by one, then the object is blamed."""

from __future__ import annotations

from typing import Final

from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import WorkersLost
from massmigration.models import MigrationShard

SINGLES_AFTER: Final = 3
"""How many workers may be lost before objects are worked one by one, to find the one at which they are lost."""

BLAMED_AFTER: Final = 6
"""How many may be lost before that object becomes a failure, without another try."""

GIVEN_UP_AFTER: Final = 12
"""How many may be lost where there is no object to blame: planning, the end, ``launch()``, a ``SimpleMigration``."""


def is_searching(shard: MigrationShard) -> bool:
    """Return whether the objects of the shard are worked one by one, because workers were lost."""
    return (shard.takeovers or 0) >= SINGLES_AFTER


def is_found(shard: MigrationShard) -> bool:
    """Return whether the next object of the shard is to blame for the workers that were lost."""
    return (shard.takeovers or 0) >= BLAMED_AFTER


def check_takeovers(shard: MigrationShard, migration: BaseMigration) -> None:
    """Raise WorkersLost if the shard, which was just claimed, has lost too many workers to try again."""
    has_objects = shard.kind == MigrationShard.RANGE and get_kind(migration).has_objects
    # One more than an object may cost: the last worker was lost while it looked for the object's key.
    if (shard.takeovers or 0) >= (BLAMED_AFTER + 1 if has_objects else GIVEN_UP_AFTER):
        raise make_error(shard, _describe_place(shard, migration))


def make_error(shard: MigrationShard, place: str) -> WorkersLost:
    """Return the error that says how often workers were lost, and where, such as ``"at the object with key 7"``."""
    return WorkersLost(
        f"{shard.takeovers} workers in a row were lost {place}: each was killed (for taking too much memory, for "
        "example), crashed, was stopped by a time limit, or hung. See the workers' logs, correct the migration or the "
        "data, and retry.",
        key=shard.key,
    )


def _describe_place(shard: MigrationShard, migration: BaseMigration) -> str:
    if shard.kind == MigrationShard.FINISH:
        return "at the end, where the rest is counted and verify() is called"
    kind = get_kind(migration)
    if shard.kind == MigrationShard.PLAN:
        return kind.plans_in
    if not kind.has_objects:
        return kind.works_in
    return f"{kind.works_in} {'at the beginning of its shard' if shard.cursor is None else f'after {shard.cursor}'}"
