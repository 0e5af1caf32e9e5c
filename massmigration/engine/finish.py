"""The last step of an attempt: catch up, look at the failures, verify, and only then APPLIED."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone

from massmigration import recorder, states
from massmigration.databases import clock
from massmigration.databases.counting import Count, count_rows
from massmigration.databases.redaction import describe
from massmigration.databases.transactions import is_transient, run_write
from massmigration.definitions.base import BaseMigration, QuerysetMigration, WorkedMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.engine.accepted import count_accepted, describe_accepted
from massmigration.engine.kinds import get_kind
from massmigration.engine.methods import check_result
from massmigration.engine.refusals import FinishRefused
from massmigration.engine.sharding import plan_pass
from massmigration.engine.tables import get_table, is_until_empty
from massmigration.exceptions import FenceLost, RetryLater
from massmigration.models import MigrationShard
from massmigration.recorder import Author

MAX_PASSES: Final = 5
"""So often the table is gone over at most; a site that goes on making rows needs a fix of its own first."""


LAST_PASS: Final = "last_pass"
"""Parameter of an attempt whose person asked for more passes than that, by a retry."""

REST_SECONDS: Final = 0.5


def make_finish_if_due(migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID) -> str | None:
    """Make the shard of kind finish if no range is open any more.

    Its key is made from attempt and pass: so whoever sees that it is due may make it, and it is made once.

    Returns:
        The shard's key if it is due and not done, else None.
    """
    if get_kind(migration) is None:
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
    finish = MigrationShard(
        id=finish_id,
        attempt_uuid=attempt_uuid,
        key=migration.key,
        kind=MigrationShard.FINISH,
        pass_number=pass_number,
    )
    run_write(db_alias, lambda: recorder.add_shards([finish], db_alias))
    return finish_id


def run_finish(shard: MigrationShard, migration: WorkedMigration, db_alias: str, author: Author) -> None:
    """Bring an attempt whose ranges are all done to its end: another pass, or APPLIED.

    Args:
        shard: The shard of kind finish, held by this worker.
        migration: The definition.
        db_alias: The database.
        author: The worker.

    Raises:
        FinishRefused: Something is missing; the sentence says what.
        RetryLater: Some ranges are open again.
        FenceLost: Another worker does it.
    """
    ranges = [
        other for other in recorder.get_shards(shard.attempt_uuid, db_alias) if other.kind == MigrationShard.RANGE
    ]
    if any(other.status != MigrationShard.DONE for other in ranges):  # a retry opened some again
        raise RetryLater(REST_SECONDS, "the last key ranges")
    open_count = recorder.count_open_failures(shard.attempt_uuid, db_alias)
    if open_count:
        raise FinishRefused(
            states.FAILURES_OPEN,
            f"{open_count} object{'s' if open_count > 1 else ''} could not be migrated. "
            "Fix the problem and retry, or accept them as they are.",
        )
    warning = ""
    if isinstance(migration, QuerysetMigration):
        next_pass, warning = _catch_up(shard, ranges, migration, db_alias)
        if next_pass:
            _write_end(shard, db_alias, lambda: recorder.add_shards(next_pass, db_alias))
            return
    _verify(migration, db_alias)
    processed = sum(other.processed for other in ranges)
    knows_changed = isinstance(migration, MapperMigration) and migration.update_fields
    changed = sum(other.changed for other in ranges) if knows_changed else None
    if processed and changed == 0:
        warning = "No row was changed: all of them had the right values already, or the operation sets nothing."
    accepted = describe_accepted(shard.attempt_uuid, db_alias)
    if not processed and not accepted:
        warning = _describe_nothing(migration, ranges, db_alias)
    warning = " ".join(filter(None, [warning, accepted]))

    def apply() -> None:
        recorder.keep_totals(shard.attempt_uuid, db_alias, warning=warning)
        if not recorder.move(shard.key, db_alias, "finish", author, of_attempt=shard.attempt_uuid, detail=warning):
            raise FenceLost(f"{shard.key} was paused or cancelled while it was about to finish.", key=shard.key)

    _write_end(shard, db_alias, apply)


def _describe_nothing(migration: WorkedMigration, ranges: list[MigrationShard], db_alias: str) -> str:
    """Return the warning of an attempt that visited nothing, perhaps because of a typo."""
    if isinstance(migration, QuerysetMigration):
        table = get_table(migration, db_alias)
        model = table.queryset.model._meta.label
        if not table.keys.exists():  # as on every new database, so nobody has to look at it
            return ""
        return f"Nothing was done: no row of {model} matched. If there should have been some, look at get_queryset()."
    if not ranges:
        return "Nothing was done: get_shards() returned none."
    return "Nothing was done: get_items() yielded nothing. If it should have, look at it."


def _write_end(shard: MigrationShard, db_alias: str, write: Any) -> None:
    def write_both() -> None:
        write()
        recorder.advance_shard(
            shard,
            db_alias,
            status=MigrationShard.DONE,
            worker="",
            **clock.NO_LEASE,
            finished_at=timezone.now(),
        )

    run_write(db_alias, write_both)


def _catch_up(
    shard: MigrationShard, ranges: list[MigrationShard], migration: QuerysetMigration, db_alias: str
) -> tuple[list[MigrationShard], str]:
    """Return the shards of another pass, or none and a warning if rows are left that no pass would take."""
    table = get_table(migration, db_alias)
    if not is_until_empty(migration, table):
        return [], ""
    count = count_rows(table.queryset)
    if count == Count(0, is_estimate=False):
        return [], ""
    if not count.is_estimate and count.number == count_accepted(table, shard.attempt_uuid, db_alias):
        return [], ""
    left_matching = sum(other.left_matching for other in ranges)
    visited = sum(other.processed for other in ranges if other.pass_number == shard.pass_number)
    if migration.until_empty is None and left_matching:
        return [], (
            f"{left_matching} or more rows still match the queryset after their visit, so the table was not gone over "
            "again for rows that came in meanwhile. Set until_empty if they have to be caught."
        )
    if count.is_estimate and shard.pass_number > 1 and not visited:
        return [], ""
    attempt = recorder.get_attempt(shard.attempt_uuid, db_alias)
    if attempt is not None and shard.pass_number >= attempt.parameters.get(LAST_PASS, MAX_PASSES):
        raise FinishRefused(
            states.NOT_EMPTY,
            f"The queryset still finds rows after {shard.pass_number} passes. Correct the operation, or what keeps "
            "making such rows, and retry.",
        )
    return [
        MigrationShard(
            id=MigrationShard.make_id(shard.attempt_uuid, MigrationShard.RANGE, shard.pass_number + 1, number),
            attempt_uuid=shard.attempt_uuid,
            key=shard.key,
            kind=MigrationShard.RANGE,
            pass_number=shard.pass_number + 1,
            number=number,
            lower=part.lower,
            upper=part.upper,
            extension=part.extension,
        )
        for number, part in enumerate(plan_pass(migration, table))
    ], ""


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
