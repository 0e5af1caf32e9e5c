"""The last step of an attempt: catch up, look at the failures, verify, and only then APPLIED."""

from __future__ import annotations

import uuid
from typing import Any, Final

from massmigration import recorder, states, wording
from massmigration.databases.redaction import describe
from massmigration.databases.registry import is_transient
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration, WorkedMigration
from massmigration.engine.accepted import describe_accepted
from massmigration.engine.kinds import get_kind
from massmigration.engine.leaving import Rest, Stopped
from massmigration.engine.methods import check_result
from massmigration.engine.refusals import FinishRefused
from massmigration.exceptions import RetryLater
from massmigration.models import MigrationShard
from massmigration.recorder import Author

REST_SECONDS: Final = 0.5


def make_finish_if_due(migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID) -> str | None:
    """Make the finish shard if no range is open any more; return its key if it is due and not done, else None.

    Its key is made from attempt and pass: so any process that sees that it is due may make it, and it is made once.
    """
    if get_kind(migration).is_launched:
        return None
    shards = recorder.get_shards(attempt_uuid, db_alias)
    if not any(shard.kind == MigrationShard.PLAN and shard.status == MigrationShard.DONE for shard in shards):
        return None
    if any(shard.status != MigrationShard.DONE for shard in shards):
        return None
    pass_number = max(shard.pass_number for shard in shards)
    finish_id = MigrationShard.make_id(attempt_uuid, MigrationShard.FINISH, pass_number)
    if any(shard.pk == finish_id for shard in shards):
        return None
    maker = recorder.ShardMaker(db_alias)
    run_write(db_alias, lambda: maker.add_finish(attempt_uuid, migration.key, pass_number))
    return finish_id


def run_finish(shard: MigrationShard, migration: BaseMigration, db_alias: str, author: Author) -> None:
    """Bring an attempt whose ranges are all done to its end: another pass, or APPLIED.

    Raises:
        FinishRefused: Something is missing; the sentence says what.
        Rest: Some ranges are open again.
        FenceLost: Another worker does it.
        Stopped: The run was paused or cancelled meanwhile.
    """
    ranges = [
        other for other in recorder.get_shards(shard.attempt_uuid, db_alias) if other.kind == MigrationShard.RANGE
    ]
    if any(other.status != MigrationShard.DONE for other in ranges):  # a retry opened some again
        raise Rest(REST_SECONDS, "the last key ranges")
    open_count = recorder.count_open_failures(shard.attempt_uuid, db_alias)
    if open_count:
        raise FinishRefused(
            states.FAILURES_OPEN,
            f"{wording.count(open_count, 'objects')} could not be migrated. "
            "Fix the problem and retry, or accept the failures.",
        )
    kind = get_kind(migration)
    parts, warning = kind.find_next_pass(shard, ranges, db_alias)
    if parts:
        maker, number = recorder.ShardMaker(db_alias), shard.pass_number + 1
        _write_end(shard, db_alias, lambda: maker.add_ranges(shard.attempt_uuid, shard.key, parts, number))
        return
    _verify(kind.migration, db_alias)
    processed = sum(other.processed for other in ranges)
    changed = sum(other.changed for other in ranges) if kind.knows_changed else None
    if processed and changed == 0:
        warning = "No row was changed: all of them had the right values already, or the operation sets nothing."
    accepted = describe_accepted(shard.attempt_uuid, db_alias)
    if not processed and not accepted:
        warning = kind.describe_nothing(ranges, db_alias)
    warning = " ".join(filter(None, [warning, accepted]))

    def apply() -> None:
        recorder.keep_totals(shard.attempt_uuid, db_alias, warning=warning)
        if not recorder.move(shard.key, db_alias, "finish", author, of_attempt=shard.attempt_uuid, detail=warning):
            raise Stopped(f"{shard.key} was paused or cancelled at its end.")

    _write_end(shard, db_alias, apply)


def _write_end(shard: MigrationShard, db_alias: str, write: Any) -> None:
    def write_both() -> None:
        write()
        recorder.ShardRecorder(db_alias).finish_shard(shard)

    run_write(db_alias, write_both)


def _verify(migration: WorkedMigration, db_alias: str) -> None:
    try:
        verdict = migration.verify(db_alias)
    except RetryLater:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        raise FinishRefused(states.VERIFY_FAILED, f"verify() raised {describe(error)}") from error
    check_result(verdict, "verify", migration)
    if verdict is not None and verdict is not True:
        sentence = verdict if isinstance(verdict, str) else "verify() returned False."
        raise FinishRefused(states.VERIFY_FAILED, sentence)
