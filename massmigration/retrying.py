"""What a retry opens again: the objects that failed, the passes that did not suffice, the launch that did not work."""

from __future__ import annotations

import uuid

from massmigration import recorder, states
from massmigration.definitions.base import BaseMigration
from massmigration.engine.finish import LAST_PASS, MAX_PASSES
from massmigration.engine.kinds import get_kind
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard


def open_failed(migration: BaseMigration, record: MigrationRecord, attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Make ready what a retry has to do again: failed objects, more passes, a hand-written ``launch()``.

    Args:
        migration: The definition.
        record: As it was before the retry.
        attempt_uuid: The attempt that goes on.
        db_alias: The database; to be called in the transaction of the move.
    """
    _open_failures(migration, attempt_uuid, db_alias)
    shards = recorder.get_shards(attempt_uuid, db_alias)
    if get_kind(migration) is None:
        recorder.open_again([shard.pk for shard in shards], db_alias)
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    if attempt is not None and record.reason == states.NOT_EMPTY:
        last_pass = max((shard.pass_number for shard in shards), default=1) + MAX_PASSES
        recorder.update_attempt(attempt_uuid, db_alias, parameters={**attempt.parameters, LAST_PASS: last_pass})


def _open_failures(migration: BaseMigration, attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Close the open failures; those that the cursors have passed get a shard of their own."""
    shards = {shard.pk: shard for shard in recorder.get_shards(attempt_uuid, db_alias)}
    passed: dict[str, list[str]] = {}
    for failure in recorder.get_failures(attempt_uuid, db_alias):
        shard = shards.get(failure.shard_id)
        if failure.status != MigrationFailure.OPEN or failure.object_key is None or shard is None:
            continue
        if failure.is_passed:
            passed.setdefault(shard.pk, []).append(failure.object_key)
    pass_number = max((shard.pass_number for shard in shards.values()), default=1)
    numbers = [shard.number for shard in shards.values() if shard.kind == MigrationShard.RANGE]
    number = max(numbers, default=-1)
    new = []
    for shard_id, keys in passed.items():
        number += 1
        payload = {**(shards[shard_id].payload or {}), "keys": keys}
        new.append(
            MigrationShard(
                id=f"{attempt_uuid.hex}-retry-{uuid.uuid4().hex[:12]}",  # a split in flight may take the number
                attempt_uuid=attempt_uuid,
                key=migration.key,
                kind=MigrationShard.RANGE,
                pass_number=pass_number,
                number=number,
                payload=payload,
            )
        )
    recorder.add_shards(new, db_alias)
    recorder.mark_failures_retried(attempt_uuid, db_alias)
