"""The watch of a run on a queue: a delayed task that comes back, and finds shards that lost their worker or task."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from massmigration import recorder
from massmigration.backends.base import WATCH, BaseBackend
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.leases import get_max_workers, is_claimable, is_live
from massmigration.models import MigrationAttempt, MigrationShard

LONGEST_REST: Final = timedelta(hours=1)
"""The longest time between two looks at a run whose migration has no file."""

ROUNDS_OVERTAKEN: Final = 10
"""A waiting task counts as lost once the queue has delivered one that was enqueued this number of rounds of the watch
later: the order of a queue is not strict, but roughly kept."""

LONGEST_WAIT: Final = timedelta(days=1)
"""After this time a task is enqueued again in any case. One too many does nothing when it is delivered."""


def get_rest(db_alias: str, attempt_uuid: uuid.UUID, launched_at: datetime) -> float:
    """Return in how many seconds to look again at a run whose migration has no file in this release.

    The next deploy may bring the file back at once, or never: so the next look is as far away as the last sign of work.
    """
    signs = [shard.last_progress_at for shard in recorder.get_shards(attempt_uuid, db_alias)]
    worked_at = max([launched_at, *(sign for sign in signs if sign is not None)])
    rest = min(timezone.now() - worked_at, LONGEST_REST)
    return max(rest.total_seconds(), conf.watch_seconds)


def enqueue_watch(
    backend: BaseBackend, key: str, db_alias: str, attempt: MigrationAttempt, *, seconds: float | None = None
) -> bool:
    """Enqueue the next look at the run, ``MASSMIGRATION_WATCH_SECONDS`` from now unless told otherwise.

    A run has one watch, the one whose time the attempt keeps. If several callers enqueue one at the same time, such as
    deliveries of the same task, the others are superseded when they are delivered, or they would multiply. So the
    attempt has to be as the caller read it to decide that it is unwatched.

    Returns:
        Whether it is this caller's watch that counts; a backend without a queue needs none.
    """
    if not backend.supports_queue:
        return False
    delay = conf.watch_seconds if seconds is None else seconds
    due_at = timezone.now() + timedelta(seconds=delay)
    arguments = {"key": key, "db_alias": db_alias, "attempt": str(attempt.uuid), "due_at": due_at.isoformat()}
    name = f"watch {attempt.uuid} {due_at}"
    backend.enqueue(WATCH, arguments, db_alias=db_alias, delay_seconds=delay, name=name)
    # Recorded afterwards: a process killed in between is delivered again, so no watch is expected that never comes.
    seen = attempt.watch_due_at
    return run_write(db_alias, lambda: recorder.record_watch(attempt.uuid, db_alias, seen, due_at))


def is_superseded(attempt: MigrationAttempt, due_at: datetime | None) -> bool:
    """Return whether a watch that was delivered and due at this time has nothing to do, because the run has another."""
    now, noted = timezone.now(), attempt.watch_due_at
    early_at = now + timedelta(seconds=conf.watch_seconds / 4)
    if due_at is not None and due_at > early_at and not clock.is_ahead(due_at, now, conf.watch_seconds):
        return True  # the queue knows no delays, and would call us again and again
    if noted is None or clock.is_ahead(noted, now, conf.watch_seconds):
        return False
    if due_at is None or due_at == noted:
        return noted > early_at
    return noted > now - timedelta(seconds=conf.watch_seconds / 2)


def is_unwatched(attempt: MigrationAttempt) -> bool:
    """Return whether the watch of an attempt was never enqueued, or is overdue, as after a purge of the queue.

    One too far in the future was recorded before the clock was set back: its task may come in an hour.
    """
    now, due_at = timezone.now(), attempt.watch_due_at
    if due_at is None or clock.is_ahead(due_at, now, conf.watch_seconds):
        return True
    return due_at < now - timedelta(seconds=conf.watch_seconds)


def find_lost(
    migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID, launched_at: datetime, now: datetime
) -> list[MigrationShard]:
    """Return the shards that have to be enqueued again.

    A task that waits is not lost: a thousand may wait for sixteen workers, or for another migration. ``launched_at`` is
    when the run was last started, resumed or recovered.
    """
    shards = recorder.get_shards(attempt_uuid, db_alias)
    free = list(filter(is_claimable, shards))
    left = [shard for shard in free if _has_lost_worker(shard) or _is_left(shard, now)]
    waiting = sorted((shard for shard in free if shard not in left), key=_get_waiting_since)
    found = left + _find_forgotten(waiting, shards, launched_at, now)
    return take_free_places(found, shards, migration, db_alias)


def take_free_places(
    ready: Sequence[MigrationShard], shards: Sequence[MigrationShard], migration: BaseMigration, db_alias: str
) -> list[MigrationShard]:
    """Return the first of the ready shards, as many as may be worked on in addition to those that already are."""
    bound = get_max_workers(migration, db_alias)
    return list(ready if bound is None else ready[: max(0, bound - sum(map(is_live, shards)))])


def _has_lost_worker(shard: MigrationShard) -> bool:
    """Return whether the lease has expired and no task was enqueued since."""
    expired_at = shard.lease_expires_at
    return shard.status == MigrationShard.RUNNING and (expired_at is None or shard.enqueued_at <= expired_at)


def _is_left(shard: MigrationShard, now: datetime) -> bool:
    """Return whether its worker left the shard to the watch, or it is unknown when it was enqueued."""
    return shard.waiting_for == versions.WAITS or clock.is_ahead(shard.enqueued_at, now)


def _get_waiting_since(shard: MigrationShard) -> datetime:
    return max(shard.enqueued_at, shard.not_before or shard.enqueued_at)


def _find_forgotten(
    waiting: Sequence[MigrationShard], shards: Sequence[MigrationShard], launched_at: datetime, now: datetime
) -> list[MigrationShard]:
    """Return those of the waiting shards, oldest first, whose task does not seem to be on the queue any more."""
    round_ = timedelta(seconds=conf.watch_seconds)
    live = [shard for shard in shards if is_live(shard)]
    signs = [shard.last_progress_at for shard in shards if shard.last_progress_at]
    worked_at = max((sign for sign in signs if not clock.is_ahead(sign, now)), default=None)
    # A queue that delivers one task at a time calls us between two visits: then no worker is alive, and nothing lost.
    if not live and (worked_at is None or now - worked_at > round_ / 2):
        # They may wait for another migration: so each time twice as long, or the number of tasks would grow forever.
        idle = now - min(now, max(launched_at, worked_at or launched_at))
        patience = max(round_ / 2, idle / 2)
        return [shard for shard in waiting if now - _get_waiting_since(shard) > patience]
    delivered = [*live, *(shard for shard in shards if shard.status == MigrationShard.DONE)]
    newest = max((shard.enqueued_at for shard in delivered), default=launched_at)
    limit = max(newest - round_ * ROUNDS_OVERTAKEN, now - LONGEST_WAIT)
    overtaken = [shard for shard in waiting if _get_waiting_since(shard) < limit]
    return overtaken[: max(1, len(live))]  # as many as can be worked on at once; the next round looks again
