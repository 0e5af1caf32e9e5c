"""Where a migration stands: counters summed from the shards of a live attempt, or kept from a finished one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from django.utils import timezone

from massmigration import recorder, states
from massmigration.databases import clock
from massmigration.databases.transactions import is_document_store
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import is_live
from massmigration.engine.stalls import get_stall
from massmigration.engine.sums import ShardSums, add_up, query_sums
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from massmigration.recorder import FailureCounts
from massmigration.recorder.failures import count_failures_of


@dataclass(frozen=True)
class ShardProgress:
    """Where one shard stands; keys are encoded as ``engine/keys.py`` does."""

    number: int
    kind: str
    pass_number: int
    status: str
    lower: str | None
    upper: str | None
    cursor: str | None
    processed: int
    worker: str
    lease_expires_at: datetime.datetime | None
    waiting_for: str
    is_live: bool = False
    takeovers: int | None = None


@dataclass(frozen=True)
class Progress:
    """Where one migration stands on one database. Unknown is None.

    The fields down to ``error`` are those of ``showmassmigrations --format json``; times are aware, ``rate`` is in
    objects per second, ``eta_seconds`` in seconds, ``percent`` is at most 99 before the end.
    """

    key: str
    app_label: str
    name: str
    database: str
    status: str
    direction: str | None = None
    reason: str | None = None
    processed: int | None = None
    changed: int | None = None
    failed: int | None = None
    total: int | None = None
    total_is_estimate: bool | None = None
    shards: int | None = None
    shards_done: int | None = None
    workers_alive: int | None = None
    stalled: bool = False
    waiting_for: str | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    attempt_uuid: str | None = None
    backend: str | None = None
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    last_progress_at: datetime.datetime | None = None
    started_by: str | None = None
    faked: bool = False
    error: str | None = None
    stalled_since: datetime.datetime | None = None
    warning: str = ""
    description: str = ""
    log_path: str = ""
    source_changed: bool = False
    percent: float | None = None
    shard_rows: tuple[ShardProgress, ...] = ()
    record_status: str = states.NOT_RUN
    acceptable: int = 0

    @property
    def allowed_actions(self) -> list[str]:
        """What a person may do now; without a working file a migration can only be stopped and reset."""
        actions = states.get_legal_actions(self.record_status)
        if self.status in (states.BROKEN, states.ORPHANED):
            return [action for action in actions if action in ("pause", "cancel", "reset")]
        unwanted = {"recover": not self.stalled, "accept": not self.acceptable}
        return [action for action in actions if not unwanted.get(action)]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of ``--format json``, in their order, as JSON values."""
        row = {}
        for field in fields(self):
            value = getattr(self, field.name)
            row[field.name] = value.isoformat() if isinstance(value, datetime.datetime) else value
            if field.name == "error":
                break
        return row


@dataclass(frozen=True)
class Subject:
    """A migration whose standing is wanted.

    Attributes:
        key: The migration's key.
        migration: The definition, or None if there is none that works.
        missing_status: The status to show if there is no record, or no definition.
        error: Why there is no definition.
        source_hash: Hash of the file as it is now.
    """

    key: str
    migration: BaseMigration | None
    missing_status: str = states.NOT_RUN
    error: str | None = None
    source_hash: str | None = None


def get_progress(
    key: str,
    db_alias: str,
    migration: BaseMigration | None,
    *,
    missing_status: str = states.NOT_RUN,
    error: str | None = None,
    source_hash: str | None = None,
) -> Progress:
    """Return where a migration stands, with its shards; arguments as for ``Subject``."""
    subject = Subject(key, migration, missing_status, error, source_hash)
    record = recorder.get_record(key, db_alias)
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias) if record is not None else None
    if record is None or attempt is None:
        return _make_progress(subject, db_alias, record)
    shards = recorder.get_shards(attempt.uuid, db_alias, with_payloads=False)
    found = _make_progress(
        subject, db_alias, record, attempt, add_up(shards), recorder.count_failures(attempt.uuid, db_alias)
    )
    return replace(found, shard_rows=tuple(_get_shard_progress(shard) for shard in shards))


def get_all(subjects: Sequence[Subject], db_alias: str) -> list[Progress]:
    """Return where many migrations stand, without their shards; on SQL with the same few queries for any number."""
    if is_document_store(db_alias):
        return [
            get_progress(
                each.key,
                db_alias,
                each.migration,
                missing_status=each.missing_status,
                error=each.error,
                source_hash=each.source_hash,
            )
            for each in subjects
        ]
    records = recorder.get_records([each.key for each in subjects], db_alias)
    uuids = [record.attempt_uuid for record in records.values() if record.attempt_uuid is not None]
    attempts = recorder.get_attempts(uuids, db_alias)
    active = [each.attempt_uuid for each in records.values() if each.attempt_uuid and each.status in states.ACTIVE]
    sums, counts = query_sums(uuids, active, db_alias), count_failures_of(uuids, db_alias)
    rows = []
    for each in subjects:
        record = records.get(each.key)
        attempt = attempts.get(record.attempt_uuid) if record is not None and record.attempt_uuid else None
        if attempt is None:
            rows.append(_make_progress(each, db_alias, record))
            continue
        found = sums.get(attempt.uuid, ShardSums()), counts.get(attempt.uuid, FailureCounts())
        rows.append(_make_progress(each, db_alias, record, attempt, *found))
    return rows


def _make_progress(
    subject: Subject,
    db_alias: str,
    record: MigrationRecord | None,
    attempt: MigrationAttempt | None = None,
    sums: ShardSums | None = None,
    failures: FailureCounts | None = None,
) -> Progress:
    migration, error = subject.migration, subject.error
    app_label, _, name = subject.key.partition(":")
    base: dict[str, Any] = {
        "key": subject.key,
        "app_label": app_label,
        "name": name,
        "database": db_alias,
        "description": migration.description if migration is not None else "",
    }
    if record is None:
        return Progress(**base, status=subject.missing_status, error=error)
    base |= {
        "status": record.status if migration is not None else subject.missing_status,
        "record_status": record.status,
        "direction": record.direction,
        "reason": record.reason or None,
        "faked": record.faked,
        "error": error or record.error or None,
    }
    if attempt is None or sums is None or failures is None:
        if record.faked:
            base["finished_at"] = record.moved_at
        return Progress(**base)
    source_hash = subject.source_hash
    base |= {
        "attempt_uuid": str(attempt.uuid),
        "backend": attempt.backend,
        "started_at": attempt.started_at,
        "started_by": attempt.started_by,
        "finished_at": attempt.finished_at,
        "log_path": attempt.log_path,
        "warning": " ".join(filter(None, [attempt.warning, _describe_versions(attempt)])),
        "source_changed": bool(source_hash and attempt.source_hash and source_hash != attempt.source_hash),
    }
    return Progress(**base, **_sum(record, attempt, migration, sums, failures))


def _describe_versions(attempt: MigrationAttempt) -> str:
    """Return a sentence if the attempt was not worked with one version of the file alone."""
    if not attempt.former_hashes:
        return ""
    count = len(attempt.former_hashes) + 1
    return f"The file was changed during the run, so its rows may have been migrated by {count} versions of it."


def _sum(
    record: MigrationRecord,
    attempt: MigrationAttempt,
    migration: BaseMigration | None,
    sums: ShardSums,
    failures: FailureCounts,
) -> dict[str, Any]:
    knows_changed = migration is not None and get_kind(migration).knows_changed
    processed = sums.processed
    changed = sums.changed if knows_changed else None
    if attempt.processed is not None:
        processed, changed = attempt.processed, attempt.changed if knows_changed else None
    is_over = record.status not in states.ACTIVE
    rate = sums.rate or None
    if is_over and attempt.finished_at is not None:
        seconds = (attempt.finished_at - attempt.started_at).total_seconds()
        rate = processed / seconds if seconds > 0 else None
    total = attempt.total
    total_is_estimate = attempt.total_is_estimate if total is not None else None
    if total is not None and processed > total:  # rows came in meanwhile, or the estimate was low
        total, total_is_estimate = processed, record.status != states.APPLIED
    now = timezone.now()
    resting = [shard for shard in sums.shards if shard.waiting_for and clock.is_resting(shard, now)]
    waiting = resting[0].waiting_for if resting else None
    # Left alone by its worker, without a time from which on it is worked again: that may be a stall, too.
    left = next((shard.waiting_for for shard in sums.shards if shard.waiting_for and shard.not_before is None), None)
    result: dict[str, Any] = {
        "processed": processed,
        "changed": changed,
        "failed": failures.open,
        "acceptable": failures.acceptable,
        "total": total,
        "total_is_estimate": total_is_estimate,
        "shards": sums.ranges if sums.has_plan else None,
        "shards_done": sums.ranges_done if sums.has_plan else None,
        "workers_alive": sums.workers_alive,
        "waiting_for": waiting or left if not is_over else None,
        "rate": round(rate, 1) if rate else None,
        "last_progress_at": sums.last_progress_at,
        "percent": _get_percent(record.status, processed, total),
    }
    if record.status == states.RUNNING and rate and total:
        result["eta_seconds"] = round(max(0, total - processed) / rate, 1)
    launched_by_hand = migration is not None and get_kind(migration).is_launched and sums.has_plan
    if not is_over and not sums.live and not waiting and not launched_by_hand:
        result |= get_stall(record, sums.shards, migration)
    return result


def _get_percent(status: str, processed: int, total: int | None) -> float | None:
    if status == states.APPLIED:
        return 100.0
    if total is None:
        return None
    return min(99.0, round(100 * processed / total, 1)) if total else 0.0


def _get_shard_progress(shard: MigrationShard) -> ShardProgress:
    stored = {field.name: getattr(shard, field.name) for field in fields(ShardProgress) if field.name != "is_live"}
    return ShardProgress(**stored, is_live=is_live(shard))
