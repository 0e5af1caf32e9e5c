"""What a retry opens again: the objects that failed, the passes that did not suffice, the launch that did not work."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.db.models import Q

from massmigration import recorder, states
from massmigration.databases.transactions import is_document_store, run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.engine.passes import LAST_PASS, MAX_PASSES
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder.conditional import DOCUMENT_LIMIT
from massmigration.recorder.failures import OPEN, PAGE, mark_open_retried, select_failures

KEYS_PER_SHARD: Final = 1_000
"""Objects that one shard of a retry lists; all shards of an attempt are read by each worker that looks for work."""


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
    if is_document_store(db_alias):
        _open_failures(shards, _get_open(record.attempt_uuid, db_alias), db_alias)
    else:
        _open_all(migration, record.attempt_uuid, shards, db_alias)
    if get_kind(migration).is_launched:
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
    return recorder.get_failures(attempt_uuid, db_alias, OPEN)


def _open_all(
    migration: BaseMigration, attempt_uuid: uuid.UUID, shards: Sequence[MigrationShard], db_alias: str
) -> None:
    """Close all open failures; those that the cursors have passed get shards of their own, with some keys in each.

    Failures are read a page at a time, in the order of their shards, because what an author's ``get_items`` is given
    is the shard's. Rows of a queryset need no shard to be found again.
    """
    by_id, finds_by_key = {shard.pk: shard for shard in shards}, get_kind(migration).finds_by_key
    new = _Maker(attempt_uuid, shards, db_alias)
    rows = select_failures(attempt_uuid, db_alias, OPEN).filter(is_passed=True, object_key__isnull=False)
    rows = rows.order_by("shard_id", "pk")
    last: tuple[str, str] | None = None
    while True:
        rest = rows if last is None else rows.filter(Q(shard_id=last[0], pk__gt=last[1]) | Q(shard_id__gt=last[0]))
        page = list(rest.values_list("shard_id", "pk", "object_key")[:PAGE])
        for shard_id, _, object_key in page:
            payload: dict[str, Any] = {}
            if not finds_by_key:
                if shard_id not in by_id:
                    continue
                payload = {**(by_id[shard_id].payload or {})}
                payload.pop("keys", None)
            new.add(payload, str(object_key))
        if len(page) < PAGE:
            break
        last = page[-1][:2]
    new.store()
    mark_open_retried(attempt_uuid, db_alias)


class _Maker:
    """Makes the shards of a retry."""

    def __init__(self, attempt_uuid: uuid.UUID, shards: Sequence[MigrationShard], db_alias: str) -> None:
        self._attempt_uuid, self._key, self._db_alias = attempt_uuid, shards[0].key if shards else "", db_alias
        self._pass_number = max((shard.pass_number for shard in shards), default=1)
        ranges = (shard.number for shard in shards if shard.kind == MigrationShard.RANGE)
        self._number = max(ranges, default=-1)
        self._payload: dict[str, Any] = {}
        self._keys: list[str] = []

    def add(self, payload: dict[str, Any], object_key: str) -> None:
        if len(self._keys) >= KEYS_PER_SHARD or payload != self._payload:
            self.store()
        self._payload = payload
        self._keys.append(object_key)

    def store(self) -> None:
        if not self._keys:
            return
        self._number += 1
        shard = MigrationShard(
            # A split in flight may take the number.
            id=f"{self._attempt_uuid.hex}-retry-{uuid.uuid4().hex[:12]}",
            attempt_uuid=self._attempt_uuid,
            key=self._key,
            kind=MigrationShard.RANGE,
            pass_number=self._pass_number,
            number=self._number,
            payload={**self._payload, "keys": self._keys},
        )
        recorder.add_shards([shard], self._db_alias)
        self._keys = []


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
