"""Where a migration stands: counters summed from the shards of a live attempt, or kept from a finished one."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from massmigration import recorder, states
from massmigration.databases.registry import get_database
from massmigration.definitions.base import BaseMigration
from massmigration.engine import figures
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import is_live
from massmigration.engine.sums import ShardSums, add_up, query_sums
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from massmigration.recorder import FailureCounts
from massmigration.recorder.failures import count_failures_of


@dataclass(frozen=True)
class ShardProgress:
    """Where one shard stands; keys are encoded as ``databases/keys.py`` does."""

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
    unit: str = "rows"

    @property
    def allowed_actions(self) -> list[str]:
        """What a person may do now; without a working file a migration can only be stopped and reset."""
        actions = states.get_legal_actions(self.record_status)
        if self.status in (states.BROKEN, states.ORPHANED):
            return [action for action in actions if not states.ACTIONS[action].needs_file]
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
    """A migration whose standing is wanted."""

    key: str
    migration: BaseMigration | None  # None if there is no definition that works.
    missing_status: str = states.NOT_RUN  # To be shown if there is no record, or no definition.
    error: str | None = None  # Why there is no definition.
    source_hash: str | None = None  # Of the file as it is now.


def get_progress(subject: Subject, db_alias: str) -> Progress:
    """Return where a migration stands, with its shards."""
    record = recorder.get_record(subject.key, db_alias)
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias) if record is not None else None
    if record is None or attempt is None:
        return make_progress(subject, db_alias, record)
    shards = recorder.get_shards(attempt.uuid, db_alias, with_payloads=False)
    failures = recorder.count_failures(attempt.uuid, db_alias)
    found = make_progress(subject, db_alias, record, _Work(attempt, add_up(shards), failures))
    return replace(found, shard_rows=tuple(_get_shard_progress(shard) for shard in shards))


def get_all(subjects: Sequence[Subject], db_alias: str) -> list[Progress]:
    """Return where many migrations stand, without their shards; on SQL with the same few queries for any number."""
    if not get_database(db_alias).has_aggregates:
        return [get_progress(subject, db_alias) for subject in subjects]
    records = recorder.get_records([subject.key for subject in subjects], db_alias)
    uuids = [record.attempt_uuid for record in records.values() if record.attempt_uuid is not None]
    attempts = recorder.get_attempts(uuids, db_alias)
    active = [each.attempt_uuid for each in records.values() if each.attempt_uuid and each.status in states.ACTIVE]
    sums, counts = query_sums(uuids, active, db_alias), count_failures_of(uuids, db_alias)
    work = {
        attempt_uuid: _Work(attempt, sums.get(attempt_uuid, ShardSums()), counts.get(attempt_uuid, FailureCounts()))
        for attempt_uuid, attempt in attempts.items()
    }
    rows = []
    for subject in subjects:
        record = records.get(subject.key)
        found = work.get(record.attempt_uuid) if record is not None and record.attempt_uuid is not None else None
        rows.append(make_progress(subject, db_alias, record, found))
    return rows


class _Work(NamedTuple):
    """What is stored of an attempt."""

    attempt: MigrationAttempt
    sums: ShardSums
    failures: FailureCounts


def make_progress(
    subject: Subject, db_alias: str, record: MigrationRecord | None = None, work: _Work | None = None
) -> Progress:
    """Return where a migration stands by what was read of it."""
    migration = subject.migration
    app_label, _, name = subject.key.partition(":")
    known: dict[str, Any] = {}
    if migration is not None:
        known = {"description": migration.description, "unit": get_kind(migration).unit}
    if record is None:
        identity = (subject.key, app_label, name, db_alias, subject.missing_status)
        return Progress(*identity, error=subject.error, **known)
    status = record.status if migration is not None else subject.missing_status
    values: dict[str, Any] = {
        "record_status": record.status,
        "direction": record.direction,
        "reason": record.reason or None,
        "faked": record.faked,
        "error": subject.error or record.error or None,
        **known,
    }
    if work is not None:
        for group in _get_groups(subject, record, work):
            values |= group._asdict()
    elif record.faked:
        values["finished_at"] = record.moved_at
    return Progress(subject.key, app_label, name, db_alias, status, **values)


def _get_groups(subject: Subject, record: MigrationRecord, work: _Work) -> Iterator[Any]:
    """Yield the groups of figures of a record that has an attempt."""
    attempt, sums, migration = work.attempt, work.sums, subject.migration
    knows_changed = migration is not None and get_kind(migration).knows_changed
    counts = figures.get_counts(attempt, sums, work.failures, knows_changed=knows_changed)
    total = figures.get_total(record.status, attempt, counts.processed)
    yield counts
    yield total
    yield figures.get_pace(record.status, attempt, sums, counts.processed, total.total)
    yield figures.get_attempt_figures(attempt, subject.source_hash)
    yield figures.get_shard_figures(sums)
    yield figures.get_wait(record, sums, migration)


def _get_shard_progress(shard: MigrationShard) -> ShardProgress:
    stored = {field.name: getattr(shard, field.name) for field in fields(ShardProgress) if field.name != "is_live"}
    return ShardProgress(**stored, is_live=is_live(shard))
