"""Whether a definition still fits the shards of an attempt, whose file may have changed since they were planned.

Cursors and bounds are keys of one model. For another model, another key or another kind of migration they mean
nothing, and rows would be skipped.
"""

from __future__ import annotations

from typing import Final

from massmigration import recorder
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationAttempt, MigrationShard

_WORDS: Final = {
    "kind": "class {}",
    "model": "model {}",
    "key": "primary key {}",
    "other_database": "other_database {!r}",
}


def check_fits(migration: BaseMigration, db_alias: str, attempt: MigrationAttempt) -> None:
    """Raise InvalidDefinition if the shards of an attempt were planned for something else than the definition is now.

    An attempt that was planned by a version of massmigration that stored no purpose is given that of the first check.
    """
    if attempt.planned_for is None and not _is_planned(attempt, db_alias):
        return
    purpose = get_kind(migration).get_purpose(db_alias)
    if attempt.planned_for is None:
        run_write(db_alias, lambda: recorder.update_attempt(attempt.uuid, db_alias, planned_for=purpose))
        return
    planned = attempt.planned_for
    for name, word in _WORDS.items():
        if planned.get(name) == purpose.get(name):
            continue
        before, now = (word.format(values[name]) if values.get(name) else "" for values in (planned, purpose))
        change = f"for {before or 'no ' + name}, but its file now has {now or 'no ' + name}"
        raise InvalidDefinition(
            f"The run of {migration.key} on database '{db_alias}' was planned {change}, so that its key ranges do not "
            "fit. Put the old file back and continue, or restart it from the beginning.",
            key=migration.key,
            db_alias=db_alias,
        )


def _is_planned(attempt: MigrationAttempt, db_alias: str) -> bool:
    plan = recorder.get_shard(MigrationShard.make_id(attempt.uuid, MigrationShard.PLAN), db_alias)
    return plan is not None and plan.status == MigrationShard.DONE
