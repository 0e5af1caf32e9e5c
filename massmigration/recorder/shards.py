"""Reads shards, in the order in which people count them, takes them from their workers, and deletes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from massmigration.databases import clock
from massmigration.databases.registry import get_database
from massmigration.models import MigrationShard

FREE: Final[dict[str, Any]] = {"worker": "", **clock.NO_LEASE}
"""The columns of a shard that no worker holds."""


def get_shard(shard_id: str, db_alias: str) -> MigrationShard | None:
    """Return the shard, or None."""
    return MigrationShard.objects.using(db_alias).filter(pk=shard_id).first()


def get_shards(attempt_uuid: uuid.UUID | None, db_alias: str, *, with_payloads: bool = True) -> list[MigrationShard]:
    """Return all shards of an attempt, in order; payloads may be lists of many keys, so they can be left out."""
    if attempt_uuid is None:
        return []
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    if not (with_payloads or get_database(db_alias).reads_whole_rows):
        shards = shards.defer("payload")
    return in_order(shards)


def in_order(shards: Iterable[MigrationShard]) -> list[MigrationShard]:
    """Return shards sorted by pass, type (plan, range, finish) and number."""
    order = {MigrationShard.PLAN: 0, MigrationShard.RANGE: 1, MigrationShard.FINISH: 2}
    return sorted(shards, key=lambda shard: (shard.pass_number, order[shard.kind], shard.number))


def select_shards(shard_ids: Sequence[str], db_alias: str) -> QuerySet[MigrationShard]:
    """Return the shards that have these primary keys."""
    return MigrationShard.objects.using(db_alias).filter(pk__in=shard_ids)


def delete_shards(attempt_uuid: uuid.UUID | None, db_alias: str) -> None:
    """Delete the shards of an attempt, which revokes every fence that a worker may still hold."""
    if attempt_uuid is None:
        return
    database = get_database(db_alias)
    if database.write_limit is None:
        MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).delete()
        return
    shards = get_shards(attempt_uuid, db_alias)
    for shard in shards:  # no worker holds those that are done: they may go later, and in more than one transaction
        if shard.status != MigrationShard.DONE:
            shard.delete(using=db_alias)
    done = [shard.pk for shard in shards if shard.status == MigrationShard.DONE]

    def delete_done() -> None:
        for part in database.page_writes(done):
            database.delete_if(select_shards(part, db_alias), {"status": MigrationShard.DONE})

    transaction.on_commit(delete_done, using=db_alias, robust=True)


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
    freed = _make_ready(retries=0, **awake)
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


def _make_ready(**fields: Any) -> dict[str, Any]:
    """Return the columns of a shard that is taken from its worker, whose fence is void then, with further ones."""
    status, now = MigrationShard.READY, timezone.now()
    return {**FREE, "fence": F("fence") + 1, "status": status, "enqueued_at": now, **fields}


def open_again(shard_ids: list[str], db_alias: str) -> None:
    """Make shards that are done ready for a worker again."""
    ready = _make_ready(finished_at=None, takeovers=0)
    get_database(db_alias).update_if(select_shards(shard_ids, db_alias), {}, ready)


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
    ready = _make_ready(cursor=cursor, retries=0, takeovers=0)
    return bool(get_database(db_alias).update_if(select_shards([shard.pk], db_alias), failed, ready))
