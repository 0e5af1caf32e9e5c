"""Whether a run is stalled: no worker holds a shard, and there has been no sign of life for too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.utils import timezone

from massmigration.backends.base import has_queue
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.definitions.base import BaseMigration
from massmigration.models import MigrationRecord, MigrationShard

START_SECONDS: Final = 10.0
"""How long a new worker may take to its first sign of life."""


def find_stall(
    record: MigrationRecord, shards: Sequence[MigrationShard], migration: BaseMigration | None
) -> datetime | None:
    """Return since when an active run is stalled whose shards no worker holds; None if it is not.

    Args:
        record: The record.
        shards: All shards of its attempt.
        migration: The definition, or None if there is none that works.
    """
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
