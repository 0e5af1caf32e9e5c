"""Accept: failed objects are skipped for a reason, and a run that only waited for that continues."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from massmigration import recorder, states, wording
from massmigration.backends.base import get_backend
from massmigration.databases.aliases import check_database
from massmigration.databases.registry import get_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.fitting import check_fits
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import AcceptRefused
from massmigration.executor.launch import launch_after_commit
from massmigration.executor.moves import Move
from massmigration.executor.naming import find_failures
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder import Author, FailureFilter, Seen
from massmigration.recorder.failures import ACCEPTABLE, OPEN, get_failures, select_failures

OBJECT_REASONS: Final = (states.FAILURES_OPEN, states.MAX_FAILURES, states.OPERATION_ERROR)
"""Why a run may have failed that continues by itself once no failure is open; else it needs a retry."""


class Acceptance(NamedTuple):
    """What an accept did.

    Attributes:
        record: As it is now.
        accepted_count: How many failures were accepted.
        open_count: How many are open still.
        goes_on: Whether the run, which had failed, continues.
    """

    record: MigrationRecord
    accepted_count: int
    open_count: int
    goes_on: bool


def accept(
    migration: BaseMigration,
    db_alias: str,
    author: Author,
    reason: str,
    failure_ids: Collection[str] | None = None,
    *,
    until: datetime | None = None,
    seen: Seen | None = None,
    enqueue: bool = True,
) -> Acceptance:
    """Skip objects that failed: close their failures, and let a failed run continue if none is left.

    Arguments as ``massmigration.api.accept_failures``; ``failure_ids`` are primary keys of failures, or unambiguous
    prefixes of them, and ``author`` is who does it.

    Raises:
        IllegalMove: The status does not allow it.
        InvalidDefinition: The attempt was planned for something else than the definition does now.
        AcceptRefused: There is no reason, or the failures named are not open, or are not those of an object.
        ConfigurationError: The run would continue, but the backend cannot run it from here.
        BackendUnreachable: The backend did not take it; the record is FAILED and can be retried.
    """
    check_database(migration, db_alias)
    move = Move("accept", migration.key, db_alias, author)
    record = move.read_legal()
    if not reason.strip():
        raise AcceptRefused(
            f"Failures of {migration.key} are accepted for a reason only, which the events keep. Give one.",
            key=migration.key,
            db_alias=db_alias,
        )
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias)
    if attempt is not None:
        check_fits(migration, db_alias, attempt)
    ids = None if failure_ids is None else find_failures(record, failure_ids, db_alias)
    wanted = ACCEPTABLE._replace(ids=ids, until=until)
    accept_part = _Part(migration, db_alias, author, reason.strip(), record.attempt_uuid, wanted, seen, enqueue)
    accepted_count = 0
    while True:
        done = run_write(db_alias, accept_part)
        accept_part.seen = None  # the next parts belong to the same action
        accepted_count += done.accepted_count
        if done.is_last:
            break
    if done.goes_on:
        assert record.attempt_uuid is not None
        make_finish_if_due(migration, db_alias, record.attempt_uuid)
        if enqueue:
            launch_after_commit(migration, db_alias, record.attempt_uuid, author)
    return Acceptance(move.read_moved(), accepted_count, done.open_count, done.goes_on)


class _Done(NamedTuple):
    accepted_count: int
    open_count: int
    is_last: bool
    goes_on: bool


@dataclass
class _Part:
    """Accepts as many failures as one transaction can write, together with the event that says so."""

    migration: BaseMigration
    db_alias: str
    author: Author
    reason: str
    attempt_uuid: uuid.UUID | None
    wanted: FailureFilter
    seen: Seen | None
    enqueue: bool

    def __call__(self) -> _Done:
        """Read all that is needed first: not every database finds what was written in the same transaction."""
        key = self.migration.key
        record = recorder.lock_record(key, self.db_alias)
        status = record.status if record is not None else states.NOT_RUN
        if record is None or not states.is_legal("accept", status) or record.attempt_uuid != self.attempt_uuid:
            raise recorder.refuse(key, self.db_alias, "accept", status)
        recorder.check_seen(record, self.seen, key, self.db_alias, "accept")
        shards = recorder.get_shards(self.attempt_uuid, self.db_alias)
        limit = get_database(self.db_alias).write_limit
        if limit is None:
            chosen = select_failures(self.attempt_uuid, self.db_alias, self.wanted)
            passed = self._pass_by(list(chosen.filter(is_passed=False).defer("traceback")), shards)
            count = recorder.close_selected(self.attempt_uuid, self.db_alias, MigrationFailure.ACCEPTED, self.wanted)
            open_count, is_last = recorder.count_open_failures(self.attempt_uuid, self.db_alias), True
        else:
            opened = get_failures(self.attempt_uuid, self.db_alias, OPEN)
            meant = [failure for failure in opened if self.wanted.matches(failure)]
            part = meant[: limit // 2]  # with each failure a shard may be written as well
            passed = self._pass_by(part, shards)
            count = recorder.close_failures(part, self.db_alias, MigrationFailure.ACCEPTED)
            open_count, is_last = len(opened) - len(part), len(part) == len(meant)
        goes_on = open_count == 0 and _is_settled(record, bool(count), shards, passed)
        if count:
            self._record_event(count)
        if goes_on:
            self._proceed([shard for shard in shards if shard.pk not in passed])
        return _Done(count, open_count, is_last, goes_on)

    def _pass_by(self, failures: Sequence[MigrationFailure], shards: Sequence[MigrationShard]) -> set[str]:
        """Move the cursors past the objects that stopped the run, and return the shards' keys."""
        by_id = {shard.pk: shard for shard in shards if shard.status == MigrationShard.FAILED}
        passed = set()
        for failure in failures:
            shard = by_id.get(failure.shard_id)
            if failure.is_passed or shard is None or shard.pk in passed:
                continue
            cursor = get_kind(self.migration).get_cursor_after(failure.object_key or "", shard)
            if not recorder.skip_object(shard, cursor, self.db_alias):
                raise AcceptRefused(
                    f"Shard {shard.pk} was changed meanwhile. Look at the failures again, then accept them.",
                    key=shard.key,
                    db_alias=self.db_alias,
                )
            passed.add(shard.pk)
        return passed

    def _record_event(self, count: int) -> None:
        objects = wording.count(count, "objects")
        recorder.add_event(
            self.migration.key,
            self.db_alias,
            "accept",
            self.author,
            self.attempt_uuid,
            f"{objects}: {self.reason}",
            {"count": count, "reason": self.reason},
        )

    def _proceed(self, shards: Sequence[MigrationShard]) -> None:
        assert self.attempt_uuid is not None
        key = self.migration.key
        if self.enqueue:
            get_backend(self.migration).check_launch(self.db_alias, origin=self.author.origin)
        recorder.move(key, self.db_alias, "proceed", self.author, of_attempt=self.attempt_uuid, reason="", error="")
        versions.adopt(self.attempt_uuid, self.db_alias, self.author)
        recorder.free_shards(self.attempt_uuid, self.db_alias, shards=shards)


def _is_settled(
    record: MigrationRecord, has_accepted: bool, shards: Sequence[MigrationShard], passed: set[str]
) -> bool:
    """Return whether only open failures kept a failed run from continuing, now that none is open."""
    if record.status != states.FAILED or record.reason not in OBJECT_REASONS:
        return False
    if record.reason == states.FAILURES_OPEN:  # also where an accept in parts was interrupted
        return True
    if record.reason == states.OPERATION_ERROR and any(
        shard.status == MigrationShard.FAILED and shard.pk not in passed for shard in shards
    ):
        return False  # a worker has failed at something else than an object
    return has_accepted
