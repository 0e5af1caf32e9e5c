"""Writes shards: each change names the fence that its writer holds, so that two workers cannot both win."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from massmigration.databases import clock
from massmigration.databases.redaction import clean, make_storable
from massmigration.databases.transactions import has_row_locks, is_document_store
from massmigration.exceptions import FenceLost, InvalidDefinition
from massmigration.models import (
    MigrationAttempt,
    MigrationShard,
)
from massmigration.recorder.conditional import DOCUMENT_LIMIT, delete_if, update_if


def get_shard(shard_id: str, db_alias: str) -> MigrationShard | None:
    """Return the shard, or None."""
    return MigrationShard.objects.using(db_alias).filter(pk=shard_id).first()


def get_shards(attempt_uuid: uuid.UUID | None, db_alias: str, *, with_payloads: bool = True) -> list[MigrationShard]:
    """Return all shards of an attempt, in the order of kind (plan, range, finish), pass and number.

    Args:
        attempt_uuid: The attempt; without one there are none.
        db_alias: The database.
        with_payloads: Whether to read what each is about, too, which may be a list of many keys.
    """
    if attempt_uuid is None:
        return []
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    if not with_payloads and not is_document_store(db_alias):
        shards = shards.defer("payload")
    return in_order(shards)


def in_order(shards: Iterable[MigrationShard]) -> list[MigrationShard]:
    """Return shards in the order of pass, kind (plan, range, finish) and number."""
    order = {MigrationShard.PLAN: 0, MigrationShard.RANGE: 1, MigrationShard.FINISH: 2}
    return sorted(shards, key=lambda shard: (shard.pass_number, order[shard.kind], shard.number))


def add_shards(shards: Iterable[MigrationShard], db_alias: str) -> None:
    """Store new shards; those that stand there already are left as they are.

    Raises:
        InvalidDefinition: They are more than one transaction can write.
    """
    new, rows = list(shards), MigrationShard.objects.using(db_alias)
    if not is_document_store(db_alias):
        rows.bulk_create(new, ignore_conflicts=True)
        return
    if len(new) > DOCUMENT_LIMIT:
        raise InvalidDefinition(
            f"{new[0].key} has {len(new)} shards, but on database '{db_alias}' one transaction can write at most "
            f"{DOCUMENT_LIMIT}. Make fewer and larger ones.",
            key=new[0].key,
            db_alias=db_alias,
        )
    stored = {shard.pk for shard in rows.filter(pk__in=[shard.pk for shard in new])} if new else set()
    rows.bulk_create([shard for shard in new if shard.pk not in stored])


def delete_shards(attempt_uuid: uuid.UUID | None, db_alias: str) -> None:
    """Delete the shards of an attempt, which revokes every fence that a worker may still hold."""
    if attempt_uuid is None:
        return
    if not is_document_store(db_alias):
        MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).delete()
        return
    shards = get_shards(attempt_uuid, db_alias)
    for shard in shards:  # nobody holds those that are done: they may go later, and in more than one transaction
        if shard.status != MigrationShard.DONE:
            shard.delete(using=db_alias)
    done = [shard.pk for shard in shards if shard.status == MigrationShard.DONE]

    def delete_done() -> None:
        for start in range(0, len(done), DOCUMENT_LIMIT):
            delete_if(select_shards(done[start : start + DOCUMENT_LIMIT], db_alias), {"status": MigrationShard.DONE})

    transaction.on_commit(delete_done, using=db_alias, robust=True)


def note_enqueued(shard: MigrationShard, db_alias: str) -> None:
    """Note that a shard that nobody works on was put on the queue again."""
    ready = {"fence": shard.fence, "status": shard.status}
    update_if(select_shards([shard.pk], db_alias), ready, {"enqueued_at": timezone.now(), "waiting_for": ""})


def note_waiting(shard: MigrationShard, db_alias: str, waiting_for: str) -> None:
    """Note that a worker left a ready shard alone, so that the next watch enqueues it.

    Args:
        shard: As it was read.
        db_alias: The database.
        waiting_for: What it waits for.
    """
    ready = {"fence": shard.fence, "status": MigrationShard.READY}
    fields = {"waiting_for": waiting_for, "not_before": None, "enqueued_at": timezone.now()}
    update_if(select_shards([shard.pk], db_alias), ready, fields)


def select_shards(shard_ids: Sequence[str], db_alias: str) -> QuerySet[MigrationShard]:
    """Return the shards that have these primary keys."""
    return MigrationShard.objects.using(db_alias).filter(pk__in=shard_ids)


def claim_shard(
    shard: MigrationShard,
    db_alias: str,
    worker: str,
    lease_seconds: float,
    max_workers: int | None,
    pattern: MigrationShard | None = None,
) -> bool:
    """Try to take a shard that is ready or whose lease has run out; raise its fence if so.

    One whose lease has run out has lost its worker, which is counted in ``takeovers``.

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
    if max_workers is not None and _count_others(shard, db_alias) >= max_workers:
        return False
    fence = shard.fence + 1
    fields: dict[str, Any] = {
        "fence": fence,
        "status": MigrationShard.RUNNING,
        "worker": clean(worker),
        **clock.make_lease(db_alias, lease_seconds),
        "not_before": None,
        "waiting_for": "",
    }
    if pattern is not None and shard.batch_size is None:
        fields |= {"batch_size": pattern.batch_size, "rate": pattern.rate}
    expected: dict[str, Any] = {"fence": shard.fence, "status": shard.status}
    if shard.status == MigrationShard.RUNNING:
        expected["cursor"] = shard.cursor  # a worker that has moved it meanwhile is not lost
        fields["takeovers"] = (shard.takeovers or 0) + 1
    if not update_if(select_shards([shard.pk], db_alias), expected, fields):
        return False
    shard.refresh_from_db(using=db_alias)
    return shard.fence == fence


def _count_others(shard: MigrationShard, db_alias: str) -> int:
    """Return how many other shards of the attempt are worked on; nobody else can take one until the commit."""
    if is_document_store(db_alias):  # where a transaction fails if what it has read was written meanwhile
        shards = get_shards(shard.attempt_uuid, db_alias)
        held = [other for other in shards if other.pk != shard.pk and other.status == MigrationShard.RUNNING]
        return sum(clock.is_leased(other, db_alias) for other in held)
    if has_row_locks(db_alias):  # claims wait for each other, or two of them would see one free place
        attempts = MigrationAttempt.objects.using(db_alias).filter(pk=shard.attempt_uuid)
        list(attempts.select_for_update().values_list("pk"))
    rows = MigrationShard.objects.using(db_alias).filter(attempt_uuid=shard.attempt_uuid)
    running = rows.filter(status=MigrationShard.RUNNING).exclude(pk=shard.pk)
    return sum(clock.is_leased(other, db_alias) for other in running.only("lease_until", "lease_expires_at"))


def renew_lease(shard_id: str, fence: int, db_alias: str, lease_seconds: float) -> bool:
    """Extend the lease of the worker that holds this fence; return whether it still does.

    Args:
        shard_id: Primary key of the shard.
        fence: The worker's.
        db_alias: The database.
        lease_seconds: How long the lease is, from now on.
    """
    expected = {"fence": fence, "status": MigrationShard.RUNNING}
    return bool(update_if(select_shards([shard_id], db_alias), expected, clock.make_lease(db_alias, lease_seconds)))


def advance_shard(shard: MigrationShard, db_alias: str, **fields: Any) -> None:
    """Write a shard's progress: the last statement of each batch.

    Args:
        shard: As its worker holds it; its fence, cursor and upper bound are compared with the stored ones.
        db_alias: The database.
        **fields: What to set; ``shard`` itself stays as it is, because the commit is still to come.

    Raises:
        FenceLost: The stored shard is another worker's by now, or its bounds were changed.
    """
    held = {"fence": shard.fence, "status": MigrationShard.RUNNING, "cursor": shard.cursor, "upper": shard.upper}
    if not update_if(select_shards([shard.pk], db_alias), held, fields):
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
    held = {"fence": shard.fence, "status": MigrationShard.RUNNING}
    if "waiting_for" in fields:
        fields["waiting_for"] = make_storable(fields["waiting_for"])[:255]
    if not update_if(select_shards([shard.pk], db_alias), held, fields):
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
    unmoved = {"fence": shard.fence, "cursor": shard.cursor, "upper": shard.upper, "status": shard.status}
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
        extension=shard.extension,
    )
    if get_shard(new.pk, db_alias) is not None:
        return None
    if not update_if(select_shards([shard.pk], db_alias), unmoved, {"upper": middle}):
        return None
    new.save(using=db_alias, force_insert=True)
    return new
