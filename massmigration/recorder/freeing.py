"""Takes shards from their workers, or makes them ready again, because a person wants it or a worker was lost."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db.models import F
from django.utils import timezone

from massmigration.databases import clock
from massmigration.databases.registry import get_database
from massmigration.models import MigrationShard
from massmigration.recorder.shards import FREE, get_shards, select_shards


def free_shards(
    attempt_uuid: uuid.UUID,
    db_alias: str,
    *,
    only_expired: bool = False,
    forgets_takeovers: bool = False,
    shards: Sequence[MigrationShard] = (),
) -> int:
    """Take all shards that are not done from their workers, whose commits are refused then, and wake those that rest.

    Args:
        attempt_uuid: The attempt.
        db_alias: The database.
        only_expired: Leave shards alone whose worker's lease has not run out.
        forgets_takeovers: Whether the workers that were lost are counted from nothing; else one whose lease has run
            out is one more.
        shards: All shards of the attempt, if they were read in this transaction: a document store cannot be asked
            again once one of them was written.

    Returns:
        How many shards were taken from a worker, or had failed, and are ready again.
    """
    shards, database = shards or get_shards(attempt_uuid, db_alias), get_database(db_alias)
    rows = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    lost = [shard for shard in shards if _has_lost_worker(shard, db_alias)]
    if not database.can_read_own_writes:
        done_with = {shard.pk for shard in lost}
        open_ids = [shard.pk for shard in shards if shard.status != MigrationShard.DONE]
        rows = select_shards([shard_id for shard_id in open_ids if shard_id not in done_with], db_alias)
    awake: dict[str, Any] = {"not_before": None, "waiting_for": "", "enqueued_at": timezone.now()}
    if forgets_takeovers:
        awake["takeovers"] = 0
    database.update_if(rows, {"status": MigrationShard.READY}, awake)
    freed = {**FREE, **awake, "fence": F("fence") + 1, "status": MigrationShard.READY, "retries": 0}
    count = sum(_free_lost(shard, db_alias, freed) for shard in lost)
    if only_expired:
        return count
    return count + database.update_if(rows, {"status__in": [MigrationShard.RUNNING, MigrationShard.FAILED]}, freed)


def _has_lost_worker(shard: MigrationShard, db_alias: str) -> bool:
    return shard.status == MigrationShard.RUNNING and not clock.is_leased(shard, db_alias)


def _free_lost(shard: MigrationShard, db_alias: str, freed: dict[str, Any]) -> int:
    """Free a shard whose lease was not renewed since it was read, and count its worker as lost."""
    unrenewed = {"status": shard.status, "fence": shard.fence, "lease_expires_at": shard.lease_expires_at}
    return get_database(db_alias).update_if(
        select_shards([shard.pk], db_alias), unrenewed, {"takeovers": (shard.takeovers or 0) + 1, **freed}
    )


def open_again(shard_ids: list[str], db_alias: str) -> None:
    """Make shards that are done ready for a worker again."""
    fields = {
        **FREE,
        "fence": F("fence") + 1,
        "status": MigrationShard.READY,
        "finished_at": None,
        "takeovers": 0,
        "enqueued_at": timezone.now(),
    }
    get_database(db_alias).update_if(select_shards(shard_ids, db_alias), {}, fields)


def skip_object(shard: MigrationShard, cursor: str, db_alias: str) -> bool:
    """Move the cursor of a shard that has failed past the object that it failed at, and make the shard ready.

    Args:
        shard: As it was read in this transaction.
        cursor: Where it stands after the object, encoded.
        db_alias: The database.

    Returns:
        Whether it still stood where it had failed.
    """
    failed = {"status": MigrationShard.FAILED, "fence": shard.fence, "cursor": shard.cursor}
    ready = {
        **FREE,
        "fence": F("fence") + 1,
        "status": MigrationShard.READY,
        "cursor": cursor,
        "retries": 0,
        "takeovers": 0,
        "enqueued_at": timezone.now(),
    }
    return bool(get_database(db_alias).update_if(select_shards([shard.pk], db_alias), failed, ready))
