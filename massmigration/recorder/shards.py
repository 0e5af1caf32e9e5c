"""Writes shards: each change names the fence that its writer holds, so that two workers cannot both win."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from massmigration.database import has_row_locks
from massmigration.exceptions import FenceLost
from massmigration.models import (
    MigrationAttempt,
    MigrationShard,
)


def get_shard(shard_id: str, db_alias: str) -> MigrationShard | None:
    """Return the shard, or None."""
    return MigrationShard.objects.using(db_alias).filter(pk=shard_id).first()


def get_shards(attempt_uuid: uuid.UUID | None, db_alias: str) -> list[MigrationShard]:
    """Return all shards of an attempt, in the order of kind (plan, range, finish), pass and number."""
    if attempt_uuid is None:
        return []
    order = {MigrationShard.PLAN: 0, MigrationShard.RANGE: 1, MigrationShard.FINISH: 2}
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    return sorted(shards, key=lambda shard: (shard.pass_number, order[shard.kind], shard.number))


def add_shards(shards: Iterable[MigrationShard], db_alias: str) -> None:
    """Store new shards; those that stand there already are left as they are."""
    MigrationShard.objects.using(db_alias).bulk_create(list(shards), ignore_conflicts=True)


def delete_shards(attempt_uuid: uuid.UUID | None, db_alias: str) -> None:
    """Delete the shards of an attempt, which revokes every fence that a worker may still hold."""
    if attempt_uuid is not None:
        MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).delete()


def revoke_fences(attempt_uuid: uuid.UUID, db_alias: str, *, only_expired: bool = False) -> int:
    """Raise the fences of all shards that are not done, so that their workers' commits are refused.

    Args:
        attempt_uuid: The attempt.
        db_alias: The database.
        only_expired: Leave shards alone whose worker's lease has not run out.

    Returns:
        How many shards were taken from a worker, or had failed, and are ready again.
    """
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    shards = shards.filter(status__in=[MigrationShard.RUNNING, MigrationShard.FAILED])
    if only_expired:
        shards = shards.filter(lease_expires_at__lt=timezone.now())
    return shards.update(
        fence=F("fence") + 1,
        status=MigrationShard.READY,
        worker="",
        lease_expires_at=None,
        not_before=None,
        waiting_for="",
        retries=0,
    )


def open_again(shard_ids: list[str], db_alias: str) -> None:
    """Make shards that are done ready for a worker once more."""
    MigrationShard.objects.using(db_alias).filter(pk__in=shard_ids).update(
        fence=F("fence") + 1, status=MigrationShard.READY, worker="", lease_expires_at=None, finished_at=None
    )


def wake_shards(attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Let shards that rest be taken at once."""
    MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid, status=MigrationShard.READY).update(
        not_before=None, waiting_for=""
    )


def claim_shard(
    shard: MigrationShard,
    db_alias: str,
    worker: str,
    lease_seconds: float,
    max_workers: int | None,
    pattern: MigrationShard | None = None,
) -> bool:
    """Try to take a shard that is ready or whose lease has run out; raise its fence if so.

    Args:
        shard: As it was read; updated in place on success.
        db_alias: The database.
        worker: Name of the worker.
        lease_seconds: How long the lease is.
        max_workers: Bound of live leases in the attempt, or None.
        pattern: A shard of the attempt whose batch size and rate a fresh one begins with.

    Returns:
        Whether this worker holds the shard now. To be called in a write transaction.
    """
    now = timezone.now()
    shards = MigrationShard.objects.using(db_alias)
    if max_workers is not None:
        if has_row_locks(db_alias):  # claims wait for each other, or two of them would see one free place
            list(
                MigrationAttempt.objects.using(db_alias)
                .select_for_update()
                .filter(pk=shard.attempt_uuid)
                .values_list("pk")
            )
        live = shards.filter(attempt_uuid=shard.attempt_uuid, status=MigrationShard.RUNNING, lease_expires_at__gte=now)
        if live.exclude(pk=shard.pk).count() >= max_workers:
            return False
    fields = {
        "fence": shard.fence + 1,
        "status": MigrationShard.RUNNING,
        "worker": worker,
        "lease_expires_at": now + timedelta(seconds=lease_seconds),
        "not_before": None,
        "waiting_for": "",
    }
    if pattern is not None and shard.batch_size is None:
        fields |= {"batch_size": pattern.batch_size, "rate": pattern.rate}
    claimable = [MigrationShard.READY, MigrationShard.RUNNING]
    if not shards.filter(pk=shard.pk, fence=shard.fence, status__in=claimable).update(**fields):
        return False
    shard.refresh_from_db(using=db_alias)
    return shard.fence == fields["fence"]


def renew_lease(shard_id: str, fence: int, db_alias: str, expires_at: datetime) -> bool:
    """Extend the lease of the worker that holds this fence; return whether it still does."""
    held = MigrationShard.objects.using(db_alias).filter(pk=shard_id, fence=fence, status=MigrationShard.RUNNING)
    return bool(held.update(lease_expires_at=expires_at))


def advance_shard(shard: MigrationShard, db_alias: str, **fields: Any) -> None:
    """Write a shard's progress: the last statement of each batch.

    Args:
        shard: As its worker holds it; its fence, cursor and upper bound are compared with the stored ones.
        db_alias: The database.
        **fields: What to set; ``shard`` itself stays as it is, because the commit is still to come.

    Raises:
        FenceLost: The stored shard is another worker's by now, or its bounds were changed.
    """
    held = MigrationShard.objects.using(db_alias).filter(
        pk=shard.pk, fence=shard.fence, cursor=shard.cursor, upper=shard.upper, status=MigrationShard.RUNNING
    )
    if not held.update(**fields):
        raise FenceLost(f"Shard {shard.pk} was taken from worker {shard.worker}.", key=shard.key)


def update_held(shard: MigrationShard, db_alias: str, **fields: Any) -> None:
    """Write to a shard that its worker leaves: handed back, done, failed.

    Wherever its cursor and its upper bound are by now: a range that was found empty is empty when it is cut, too.

    Args:
        shard: As its worker holds it; only its fence is compared with the stored one.
        db_alias: The database.
        **fields: What to set.

    Raises:
        FenceLost: The stored shard is another worker's by now.
    """
    held = MigrationShard.objects.using(db_alias).filter(pk=shard.pk, fence=shard.fence, status=MigrationShard.RUNNING)
    if not held.update(**fields):
        raise FenceLost(f"Shard {shard.pk} was taken from worker {shard.worker}.", key=shard.key)


def split_shard(shard: MigrationShard, db_alias: str, middle: str, number: int) -> MigrationShard | None:
    """Cut a shard in two at ``middle``: it keeps the lower part, a new one gets the upper part.

    Args:
        shard: As it was read; if its worker moved on meanwhile, nothing is done.
        db_alias: The database.
        middle: The encoded key that becomes the upper bound of the lower part.
        number: Number of the new shard, not used yet in its pass.

    Returns:
        The new shard, or None. To be called in a write transaction.
    """
    unmoved = MigrationShard.objects.using(db_alias).filter(
        pk=shard.pk, fence=shard.fence, cursor=shard.cursor, upper=shard.upper, status=shard.status
    )
    new = MigrationShard(
        id=MigrationShard.make_id(shard.attempt_uuid, shard.kind, shard.pass_number, number),
        attempt_uuid=shard.attempt_uuid,
        key=shard.key,
        kind=shard.kind,
        pass_number=shard.pass_number,
        number=number,
        lower=middle,
        upper=shard.upper,
        batch_size=shard.batch_size,
    )
    if MigrationShard.objects.using(db_alias).filter(pk=new.pk).exists() or not unmoved.update(upper=middle):
        return None
    new.save(using=db_alias, force_insert=True)
    return new
