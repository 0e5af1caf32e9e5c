"""What a retry opens again: the objects that failed, the passes that were not enough, the launch that did not work."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from django.db.models import Q

from massmigration import recorder, states
from massmigration.databases.registry import get_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.engine.passes import LAST_PASS, MAX_PASSES
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder.failures import OPEN, PAGE, select_failures

KEYS_PER_SHARD: Final = 1_000
"""Objects that one shard of a retry lists; all shards of an attempt are read by each worker that looks for work."""


def open_failed(
    migration: BaseMigration, record: MigrationRecord, shards: Sequence[MigrationShard], db_alias: str
) -> None:
    """Make ready what a retry has to do again: failed objects, more passes, a hand-written ``launch()``.

    To be called in the transaction of the move, with the record as it was before and all shards of its attempt.
    """
    assert record.attempt_uuid is not None
    if get_database(db_alias).write_limit is not None:
        _open_part(migration, shards, recorder.get_failures(record.attempt_uuid, db_alias, OPEN), db_alias)
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

    While the record is FAILED no worker takes what is ready, so that a crash in between loses nothing.
    """
    limit = get_database(db_alias).write_limit
    if limit is None:
        return
    part_size = limit // 2  # each may need a shard as well

    def open_part() -> bool:
        record = recorder.get_record(migration.key, db_alias)
        if record is None or record.attempt_uuid is None or record.status != states.FAILED:
            return False
        failures = recorder.get_failures(record.attempt_uuid, db_alias, OPEN)
        if len(failures) <= part_size:
            return False
        shards = recorder.get_shards(record.attempt_uuid, db_alias)
        _open_part(migration, shards, failures[:part_size], db_alias)
        return True

    while run_write(db_alias, open_part):
        pass


def _open_all(
    migration: BaseMigration, attempt_uuid: uuid.UUID, shards: Sequence[MigrationShard], db_alias: str
) -> None:
    """Close all open failures; those of objects that were skipped get shards, which are stored one by one."""
    for number, payload in enumerate(_list_keys(migration, shards, _read_skipped(attempt_uuid, db_alias))):
        _add_lists(attempt_uuid, shards, [payload], db_alias, number)
    recorder.close_selected(attempt_uuid, db_alias, MigrationFailure.RETRIED)


def _open_part(
    migration: BaseMigration, shards: Sequence[MigrationShard], failures: Sequence[MigrationFailure], db_alias: str
) -> None:
    """Close some open failures; those of objects that were skipped get shards, which are stored together."""
    skipped = [each for each in failures if each.is_passed and each.object_key is not None]
    if skipped:
        pairs = sorted((each.shard_id, str(each.object_key)) for each in skipped)
        _add_lists(skipped[0].attempt_uuid, shards, _list_keys(migration, shards, pairs), db_alias)
    recorder.close_failures(failures, db_alias, MigrationFailure.RETRIED)


def _read_skipped(attempt_uuid: uuid.UUID, db_alias: str) -> Iterator[tuple[str, str]]:
    """Yield shard and object of each open failure whose object was skipped, sorted by shard, with few in memory."""
    rows = select_failures(attempt_uuid, db_alias, OPEN).filter(is_passed=True, object_key__isnull=False)
    rows = rows.order_by("shard_id", "pk")
    page = list(rows.values_list("shard_id", "pk", "object_key")[:PAGE])
    while page:  # behind a pooler there is no server-side cursor, and iterator() would read all at once
        yield from ((shard_id, str(object_key)) for shard_id, _, object_key in page)
        last_shard, last_pk, _ = page[-1]
        rest = rows.filter(Q(shard_id=last_shard, pk__gt=last_pk) | Q(shard_id__gt=last_shard))
        page = list(rest.values_list("shard_id", "pk", "object_key")[:PAGE]) if len(page) == PAGE else []


def _list_keys(
    migration: BaseMigration, shards: Sequence[MigrationShard], pairs: Iterable[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield what the shards of a retry are about, some keys in each; the pairs of shard and object are sorted by shard.

    Rows of a queryset need no shard to be found again; what an author's ``get_items`` is given is the shard's.
    """
    by_id, finds_by_key = {shard.pk: shard for shard in shards}, get_kind(migration).finds_by_key
    about: dict[str, Any] = {}
    keys: list[str] = []
    for shard_id, object_key in pairs:
        shards_own: dict[str, Any] = {}
        if not finds_by_key:
            if shard_id not in by_id:
                continue
            shards_own = {name: value for name, value in (by_id[shard_id].payload or {}).items() if name != "keys"}
        if keys and (len(keys) >= KEYS_PER_SHARD or shards_own != about):
            yield {**about, "keys": keys}
            keys = []
        about = shards_own
        keys.append(object_key)
    if keys:
        yield {**about, "keys": keys}


def _add_lists(
    attempt_uuid: uuid.UUID,
    shards: Sequence[MigrationShard],
    payloads: Iterable[dict[str, Any]],
    db_alias: str,
    offset: int = 0,
) -> None:
    numbers = [shard.number for shard in shards if shard.kind == MigrationShard.RANGE]
    pass_number = max((shard.pass_number for shard in shards), default=1)
    first_number = max(numbers, default=-1) + 1 + offset
    key = shards[0].key if shards else ""
    recorder.ShardMaker(db_alias).add_lists(attempt_uuid, key, payloads, pass_number, first_number)
