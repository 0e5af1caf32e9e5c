"""What the shards of an attempt were planned for, and whether a definition still fits them.

Cursors and bounds are keys of one model. To another model, another key or another kind of migration they mean nothing:
rows would be skipped.
"""

from __future__ import annotations

from typing import Any, Final

from massmigration import recorder
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration, QuerysetMigration
from massmigration.engine.kinds import KINDS
from massmigration.engine.tables import get_table
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationAttempt, MigrationShard

_WORDS: Final = {
    "kind": "class {}",
    "model": "model {}",
    "key": "primary key {}",
    "other_database": "other_database {!r}",
}


def get_purpose(migration: BaseMigration, db_alias: str) -> dict[str, Any]:
    """Return what shards of this definition are planned for, as JSON values.

    Args:
        migration: The definition; its ``get_queryset()`` is called, but nothing is read.
        db_alias: The database.

    Returns:
        ``kind``, the class that the author subclassed; for those that go through a queryset also ``model``, ``key``
        (each field of the primary key with its type) and ``other_database``.
    """
    kind = next((definition for definition in KINDS if isinstance(migration, definition)), BaseMigration)
    purpose: dict[str, Any] = {"kind": kind.__name__}
    if isinstance(migration, QuerysetMigration):
        table = get_table(migration, db_alias)
        model = table.codec.model._meta.concrete_model or table.codec.model
        columns = zip(get_key_fields(model), table.codec.kinds, strict=True)
        purpose["model"] = model._meta.label
        purpose["key"] = ", ".join(f"{field.name} ({key_type.name})" for field, key_type in columns)
        purpose["other_database"] = migration.other_database
    return purpose


def check_fits(migration: BaseMigration, db_alias: str, attempt: MigrationAttempt) -> None:
    """Look whether an attempt can be continued with a definition, whose file may have changed since it was planned.

    An attempt that was planned by a version of massmigration that noted no purpose takes that of the first who asks.

    Args:
        migration: The definition as it is now.
        db_alias: The database.
        attempt: The attempt as it is stored.

    Raises:
        InvalidDefinition: Its shards were planned for something else.
    """
    if attempt.planned_for is None and not _is_planned(attempt, db_alias):
        return
    purpose = get_purpose(migration, db_alias)
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
