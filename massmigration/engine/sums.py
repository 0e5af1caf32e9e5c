"""What the shards of an attempt add up to: read from them, or added up by the database once the run is over."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Q, Sum

from massmigration import recorder
from massmigration.engine.leases import is_live
from massmigration.models import MigrationShard


@dataclass(frozen=True)
class ShardSums:
    """What the shards of one attempt add up to."""

    ranges: int = 0  # How many key ranges there are.
    ranges_done: int = 0
    processed: int = 0  # Objects that were visited.
    changed: int = 0
    has_plan: bool = False  # Are the ranges known?
    last_progress_at: datetime | None = None  # When a batch was done last.
    live: Sequence[MigrationShard] = ()  # Those that workers hold now.
    shards: Sequence[MigrationShard] = ()  # All of them, while the run is active.

    @property
    def workers_alive(self) -> int:
        """How many workers hold shards."""
        return len({shard.worker for shard in self.live})

    @property
    def rate(self) -> float:
        """Objects per second of the workers that hold ranges."""
        return sum(shard.rate for shard in self.live if shard.kind == MigrationShard.RANGE)


def add_up(shards: Sequence[MigrationShard]) -> ShardSums:
    """Return what the shards of one attempt add up to."""
    ranges = [shard for shard in shards if shard.kind == MigrationShard.RANGE]
    progress = [shard.last_progress_at for shard in shards if shard.last_progress_at]
    return ShardSums(
        ranges=len(ranges),
        ranges_done=sum(shard.status == MigrationShard.DONE for shard in ranges),
        processed=sum(shard.processed for shard in ranges),
        changed=sum(shard.changed for shard in ranges),
        has_plan=any(shard.kind == MigrationShard.PLAN and shard.status == MigrationShard.DONE for shard in shards),
        last_progress_at=max(progress, default=None),
        live=[shard for shard in shards if is_live(shard)],
        shards=shards,
    )


def query_sums(
    attempt_uuids: Collection[uuid.UUID], active: Collection[uuid.UUID], db_alias: str
) -> dict[uuid.UUID, ShardSums]:
    """Return what the shards of several attempts add up to, in two queries; for SQL databases only.

    The shards of those that are ``active`` are all read, for their leases.
    """
    rows = MigrationShard.objects.using(db_alias).filter(attempt_uuid__in=attempt_uuids)
    looked_at: dict[uuid.UUID, list[MigrationShard]] = {}
    wanted = rows.filter(Q(attempt_uuid__in=active) | Q(status=MigrationShard.RUNNING))
    for shard in recorder.in_order(wanted.defer("payload")):
        looked_at.setdefault(shard.attempt_uuid, []).append(shard)
    found = {attempt_uuid: add_up(looked_at.get(attempt_uuid, ())) for attempt_uuid in active}
    is_range, is_done = Q(kind=MigrationShard.RANGE), Q(status=MigrationShard.DONE)
    sums: dict[str, Any] = {
        "range_count": Count("pk", filter=is_range),
        "done_count": Count("pk", filter=is_range & is_done),
        "processed_sum": Sum("processed", filter=is_range),
        "changed_sum": Sum("changed", filter=is_range),
        "plan_count": Count("pk", filter=Q(kind=MigrationShard.PLAN) & is_done),
        "progress_at": Max("last_progress_at"),
    }
    over = rows.exclude(attempt_uuid__in=active).order_by().values("attempt_uuid").annotate(**sums)
    row: Any
    for row in over:
        found[row["attempt_uuid"]] = ShardSums(
            ranges=row["range_count"],
            ranges_done=row["done_count"],
            processed=int(row["processed_sum"] or 0),
            changed=int(row["changed_sum"] or 0),
            has_plan=row["plan_count"] > 0,
            last_progress_at=row["progress_at"],
            live=[shard for shard in looked_at.get(row["attempt_uuid"], ()) if is_live(shard)],
        )
    return found
