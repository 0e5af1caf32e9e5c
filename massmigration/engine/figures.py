"""The groups of figures that a progress is built from; each names what it is worked out from."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.utils import timezone

from massmigration import states
from massmigration.backends.base import has_queue
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.engine.sums import ShardSums
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from massmigration.recorder import FailureCounts

START_SECONDS: Final = 10.0
"""How long a new worker may take to its first sign of life."""


class AttemptFigures(NamedTuple):
    """What the attempt says of itself."""

    attempt_uuid: str
    backend: str
    started_at: datetime.datetime
    started_by: str
    finished_at: datetime.datetime | None
    log_path: str
    warning: str
    source_changed: bool


class Counts(NamedTuple):
    """How many objects were visited and changed, and how many have failed."""

    processed: int
    changed: int | None
    failed: int
    acceptable: int


class Total(NamedTuple):
    """How many objects there are, and how much of that is done."""

    total: int | None
    total_is_estimate: bool | None
    percent: float | None


class Pace(NamedTuple):
    """Objects per second, and how many seconds are left."""

    rate: float | None
    eta_seconds: float | None


class ShardFigures(NamedTuple):
    """How many key ranges and workers there are."""

    shards: int | None
    shards_done: int | None
    workers_alive: int
    last_progress_at: datetime.datetime | None


class Wait(NamedTuple):
    """Why nothing moves."""

    waiting_for: str | None = None
    stalled: bool = False
    stalled_since: datetime.datetime | None = None


def get_attempt_figures(attempt: MigrationAttempt, source_hash: str | None) -> AttemptFigures:
    """Return what the attempt says of itself; ``source_hash`` is that of the migration's file as it is now."""
    versions = ""
    if attempt.former_hashes:
        count = len(attempt.former_hashes) + 1
        versions = f"The file was changed during the run, so its rows may have been migrated by {count} versions of it."
    return AttemptFigures(
        str(attempt.uuid),
        attempt.backend,
        attempt.started_at,
        attempt.started_by,
        attempt.finished_at,
        attempt.log_path,
        " ".join(filter(None, [attempt.warning, versions])),
        bool(source_hash and attempt.source_hash and source_hash != attempt.source_hash),
    )


def get_counts(attempt: MigrationAttempt, sums: ShardSums, failures: FailureCounts, *, knows_changed: bool) -> Counts:
    """Return what the shards count, or what a finished attempt has kept of that."""
    is_kept = attempt.processed is not None
    processed, changed = (attempt.processed, attempt.changed) if is_kept else (sums.processed, sums.changed)
    return Counts(processed or 0, changed if knows_changed else None, failures.open, failures.acceptable)


def get_total(status: str, attempt: MigrationAttempt, processed: int) -> Total:
    """Return what was counted at the start, or ``processed`` if that is more; at most 99 percent before the end."""
    total = attempt.total
    is_estimate = attempt.total_is_estimate if total is not None else None
    if total is not None and processed > total:  # rows came in meanwhile, or the estimate was low
        total, is_estimate = processed, status != states.APPLIED
    if status == states.APPLIED:
        return Total(total, is_estimate, 100.0)
    if total is None:
        return Total(None, None, None)
    return Total(total, is_estimate, min(99.0, round(100 * processed / total, 1)) if total else 0.0)


def get_pace(status: str, attempt: MigrationAttempt, sums: ShardSums, processed: int, total: int | None) -> Pace:
    """Return the rate of the workers, or of the whole attempt once it is over."""
    rate = sums.rate
    if status not in states.ACTIVE and attempt.finished_at is not None:
        seconds = (attempt.finished_at - attempt.started_at).total_seconds()
        rate = processed / seconds if seconds > 0 else 0.0
    if not rate:
        return Pace(None, None)
    is_known = status == states.RUNNING and total
    return Pace(round(rate, 1), round(max(0, (total or 0) - processed) / rate, 1) if is_known else None)


def get_shard_figures(sums: ShardSums) -> ShardFigures:
    """Return what the shards add up to; their number is unknown until they are planned."""
    count, done_count = (sums.ranges, sums.ranges_done) if sums.has_plan else (None, None)
    return ShardFigures(count, done_count, sums.workers_alive, sums.last_progress_at)


def get_wait(record: MigrationRecord, sums: ShardSums, migration: BaseMigration | None) -> Wait:
    """Return what an active run waits for, and whether it is stalled."""
    if record.status not in states.ACTIVE:
        return Wait()
    now = timezone.now()
    waiting = [shard for shard in sums.shards if shard.waiting_for]
    resting = next((shard.waiting_for for shard in waiting if clock.is_resting(shard, now)), None)
    # Left alone by its worker, without a time from which it may be taken again: that may be a stall, too.
    left = next((shard.waiting_for for shard in waiting if shard.not_before is None), None)
    is_launched = migration is not None and get_kind(migration).is_launched and sums.has_plan
    if sums.live or resting or is_launched:  # what launch() has started elsewhere cannot be seen
        return Wait(resting or left)
    since = _find_stall(record, sums.shards, migration)
    return Wait(left, since is not None, since)


def _find_stall(
    record: MigrationRecord, shards: Sequence[MigrationShard], migration: BaseMigration | None
) -> datetime.datetime | None:
    """Return since when an active run is stalled whose shards no worker holds; None if it is not."""
    now, lease = timezone.now(), conf.lease_seconds
    signs = [shard.lease_expires_at for shard in shards if shard.lease_expires_at]
    progress = [shard.last_progress_at for shard in shards if shard.last_progress_at]
    ended = [shard.finished_at for shard in shards if shard.finished_at]
    rested = [shard.not_before for shard in shards if shard.not_before and not clock.is_ahead(shard.enqueued_at, now)]
    # A time in the future was written before the clock was set back, and is no sign of life.
    past = [sign for sign in (record.moved_at, *signs, *progress, *ended) if not clock.is_ahead(sign, now, lease)]
    since = max([*past, *rested], default=now)
    patience = min(START_SECONDS, conf.lease_seconds) if since == record.moved_at else 1.0
    if migration is not None and has_queue(migration):  # tasks may wait there, and the watch looks after them
        patience = 3 * conf.watch_seconds
    return since if (now - since).total_seconds() > patience or not past else None
