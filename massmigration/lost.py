"""Which shards of a run on a queue have lost their worker or their task, judged by what the others do."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from massmigration import recorder
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.leases import get_max_workers, is_claimable, is_live
from massmigration.models import MigrationShard

ROUNDS_OVERTAKEN: Final = 10
"""A waiting task is believed lost once the queue has delivered one that was enqueued so many rounds of the watch later:
a queue keeps no strict order, but roughly one."""

LONGEST_WAIT: Final = timedelta(days=1)
"""After this time a task is enqueued again whatever the others do. One too many does nothing when it is delivered."""


def find_lost(
    migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID, launched_at: datetime, now: datetime
) -> list[MigrationShard]:
    """Return the shards that have to be enqueued again.

    A task that waits is not lost: there may be a thousand behind sixteen workers, or behind another migration.

    Args:
        migration: The definition.
        db_alias: The database.
        attempt_uuid: The attempt.
        launched_at: When the run was last started, resumed or recovered.
        now: The time.
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
    """Return as many of the shards as may be worked on beside those that are.

    Args:
        ready: The shards to choose from, the first come first.
        shards: All of the attempt.
        migration: The definition, which may limit the number of workers.
        db_alias: The database, which may limit it, too.
    """
    bound = get_max_workers(migration, db_alias)
    return list(ready if bound is None else ready[: max(0, bound - sum(map(is_live, shards)))])


def _has_lost_worker(shard: MigrationShard) -> bool:
    """Return whether a lease has run out and no task was enqueued since."""
    expired_at = shard.lease_expires_at
    return shard.status == MigrationShard.RUNNING and (expired_at is None or shard.enqueued_at <= expired_at)


def _is_left(shard: MigrationShard, now: datetime) -> bool:
    """Return whether its worker left the shard to the watch, or nobody knows when it was enqueued."""
    return shard.waiting_for == versions.WAITS or clock.is_ahead(shard.enqueued_at, now)


def _get_waiting_since(shard: MigrationShard) -> datetime:
    return max(shard.enqueued_at, shard.not_before or shard.enqueued_at)


def _find_forgotten(
    waiting: Sequence[MigrationShard], shards: Sequence[MigrationShard], launched_at: datetime, now: datetime
) -> list[MigrationShard]:
    """Return those of the waiting shards, which are sorted, whose task does not seem to be on the queue any more."""
    round_ = timedelta(seconds=conf.watch_seconds)
    live = [shard for shard in shards if is_live(shard)]
    signs = [shard.last_progress_at for shard in shards if shard.last_progress_at]
    worked_at = max((sign for sign in signs if not clock.is_ahead(sign, now)), default=None)
    # A queue that delivers one task at a time calls us between two visits: then nobody works, and nothing is lost.
    if not live and (worked_at is None or now - worked_at > round_ / 2):
        # They may wait behind another migration: so each time after twice as long, or their number would grow for ever.
        idle = now - min(now, max(launched_at, worked_at or launched_at))
        patience = max(round_ / 2, idle / 2)
        return [shard for shard in waiting if now - _get_waiting_since(shard) > patience]
    delivered = [*live, *(shard for shard in shards if shard.status == MigrationShard.DONE)]
    newest = max((shard.enqueued_at for shard in delivered), default=launched_at)
    limit = max(newest - round_ * ROUNDS_OVERTAKEN, now - LONGEST_WAIT)
    overtaken = [shard for shard in waiting if _get_waiting_since(shard) < limit]
    return overtaken[: max(1, len(live))]  # as many as can be worked on at once; the next round looks again
