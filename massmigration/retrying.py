"""What a retry opens again: the objects that failed, the passes that did not suffice, the launch that did not work."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from massmigration import recorder, states
from massmigration.database import is_document_store, run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine.finish import LAST_PASS, MAX_PASSES
from massmigration.engine.kinds import get_kind
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder.conditional import DOCUMENT_LIMIT


def open_failed(
    migration: BaseMigration, record: MigrationRecord, shards: Sequence[MigrationShard], db_alias: str
) -> None:
    """Make ready what a retry has to do again: failed objects, more passes, a hand-written ``launch()``.

    Args:
        migration: The definition.
        record: As it was before the retry.
        shards: All shards of its attempt, read in the transaction of the move, which this is to be called in.
        db_alias: The database.
    """
    assert record.attempt_uuid is not None
    _open_failures(shards, _get_open(record.attempt_uuid, db_alias), db_alias)
    if get_kind(migration) is None:
        recorder.open_again([shard.pk for shard in shards], db_alias)
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias)
    if attempt is not None and record.reason == states.NOT_EMPTY:
        last_pass = max((shard.pass_number for shard in shards), default=1) + MAX_PASSES
        recorder.update_attempt(attempt.uuid, db_alias, parameters={**attempt.parameters, LAST_PASS: last_pass})


def open_in_parts(migration: BaseMigration, db_alias: str) -> None:
    """Open most failures before the move, where one transaction cannot write them all.

    While the record is FAILED nobody works on what is ready, so that a crash in between loses nothing.

    Args:
        migration: The definition.
        db_alias: The database.
    """
    if not is_document_store(db_alias):
        return

    def open_part() -> bool:
        record = recorder.get_record(migration.key, db_alias)
        if record is None or record.attempt_uuid is None or record.status != states.FAILED:
            return False
        failures = _get_open(record.attempt_uuid, db_alias)
        if len(failures) <= DOCUMENT_LIMIT // 2:
            return False
        shards = recorder.get_shards(record.attempt_uuid, db_alias)
        _open_failures(shards, failures[: DOCUMENT_LIMIT // 2], db_alias)
        return True

    while run_write(db_alias, open_part):
        pass


def _get_open(attempt_uuid: uuid.UUID, db_alias: str) -> list[MigrationFailure]:
    failures = recorder.get_failures(attempt_uuid, db_alias)
    return [failure for failure in failures if failure.status == MigrationFailure.OPEN]


def _open_failures(shards: Sequence[MigrationShard], failures: Sequence[MigrationFailure], db_alias: str) -> None:
    """Close open failures; those that the cursors have passed get a shard of their own."""
    by_id = {shard.pk: shard for shard in shards}
    passed: dict[str, list[str]] = {}
    for failure in failures:
        if failure.object_key is not None and failure.is_passed and failure.shard_id in by_id:
            passed.setdefault(failure.shard_id, []).append(failure.object_key)
    pass_number = max((shard.pass_number for shard in shards), default=1)
    number = max((shard.number for shard in shards if shard.kind == MigrationShard.RANGE), default=-1)
    new = []
    for shard_id, keys in passed.items():
        number += 1
        shard = by_id[shard_id]
        new.append(
            MigrationShard(
                # A split in flight may take the number.
                id=f"{shard.attempt_uuid.hex}-retry-{uuid.uuid4().hex[:12]}",
                attempt_uuid=shard.attempt_uuid,
                key=shard.key,
                kind=MigrationShard.RANGE,
                pass_number=pass_number,
                number=number,
                payload={**(shard.payload or {}), "keys": keys},
            )
        )
    recorder.add_shards(new, db_alias)
    recorder.mark_failures_retried(failures, db_alias)
