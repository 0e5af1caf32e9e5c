"""The only writer of the tables in ``models.py``.

Each change of a record is one conditional UPDATE together with its event; each change of a shard names the fence that
the writer holds. So two people, or two workers, cannot both win.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import IntegrityError, connections, transaction
from django.db.models import F
from django.utils import timezone

from massmigration import record_cache, signals, states
from massmigration.database import has_row_locks
from massmigration.exceptions import FenceLost, IllegalMove
from massmigration.models import (
    MigrationAttempt,
    MigrationEvent,
    MigrationFailure,
    MigrationRecord,
    MigrationShard,
)


class Author(NamedTuple):
    """Who changes a state, and from where.

    Attributes:
        actor: A person's name or a worker's.
        origin: ``"command"``, ``"admin"``, ``"api"`` or ``"worker"``.
        user_id: Primary key of the Django user as text, if there is one.
        sender: Class of the migration, for the signals.
    """

    actor: str
    origin: str
    user_id: str = ""
    sender: type | None = None


def get_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, or None if the migration was not run on this database."""
    return MigrationRecord.objects.using(db_alias).filter(pk=key).first()


def get_keys(db_alias: str) -> list[str]:
    """Return the keys of all records."""
    return sorted(MigrationRecord.objects.using(db_alias).values_list("pk", flat=True))


def get_attempt(attempt_uuid: uuid.UUID | None, db_alias: str) -> MigrationAttempt | None:
    """Return the attempt, or None."""
    return MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid).first()


def get_shard(shard_id: str, db_alias: str) -> MigrationShard | None:
    """Return the shard, or None."""
    return MigrationShard.objects.using(db_alias).filter(pk=shard_id).first()


def get_shards(attempt_uuid: uuid.UUID | None, db_alias: str) -> list[MigrationShard]:
    """Return all shards of an attempt, in the order of kind (plan, range, finish), pass and number."""
    order = {MigrationShard.PLAN: 0, MigrationShard.RANGE: 1, MigrationShard.FINISH: 2}
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    return sorted(shards, key=lambda shard: (shard.pass_number, order[shard.kind], shard.number))


def move(
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    *,
    of_attempt: uuid.UUID | None = None,
    detail: str = "",
    parameters: dict[str, Any] | None = None,
    **fields: Any,
) -> bool:
    """Change the status of an existing record, if the action is legal, and write the event.

    Args:
        key: The migration's key.
        db_alias: The database.
        action: A name in ``states.MOVES``.
        author: Who does it.
        of_attempt: Only if this is still the record's attempt.
        detail: One line for the event.
        parameters: For the event.
        **fields: Further fields of the record to set.

    Returns:
        Whether the record was changed; False if its status or attempt was another.
    """
    legal = states.MOVES[action]
    rows = MigrationRecord.objects.using(db_alias).filter(pk=key, status__in=legal.sources)
    if of_attempt is not None:
        rows = rows.filter(attempt_uuid=of_attempt)
    if legal.target is not None:
        fields["status"] = legal.target
    with transaction.atomic(using=db_alias):
        if not rows.update(moved_at=timezone.now(), **fields):
            return False
        attempt_uuid = fields.get("attempt_uuid", of_attempt)
        add_event(key, db_alias, action, author, attempt_uuid, detail, parameters)
    return True


def insert_record(key: str, db_alias: str, **fields: Any) -> bool:
    """Create the record; return False if somebody else was quicker."""
    app_label, _, name = key.partition(":")
    try:
        with transaction.atomic(using=db_alias):
            MigrationRecord.objects.using(db_alias).create(key=key, app_label=app_label, name=name, **fields)
    except IntegrityError:
        return False
    return True


def delete_record(key: str, db_alias: str, author: Author, attempt_uuid: uuid.UUID | None) -> bool:
    """Forget the record and its shards, if it may be reset; the events stay."""
    rows = MigrationRecord.objects.using(db_alias).filter(
        pk=key, status__in=states.MOVES["reset"].sources, attempt_uuid=attempt_uuid
    )
    deleted, _ = rows.delete()
    if deleted:
        delete_shards(attempt_uuid, db_alias)
        add_event(key, db_alias, "reset", author, attempt_uuid)
    return bool(deleted)


def add_event(
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    attempt_uuid: uuid.UUID | None = None,
    detail: str = "",
    parameters: dict[str, Any] | None = None,
) -> None:
    """Write one line of the audit trail, and send the action's signal after the commit."""
    move_of_action = states.MOVES.get(action)
    MigrationEvent.objects.using(db_alias).create(
        key=key,
        attempt_uuid=attempt_uuid,
        action=action,
        status=(move_of_action.target if move_of_action else None) or "",
        actor=author.actor[:255],
        user_id=author.user_id,
        origin=author.origin,
        detail=detail,
        parameters=parameters or {},
    )
    record_cache.forget(key, db_alias)

    def after_commit() -> None:
        record_cache.forget(key, db_alias)
        signal = signals.BY_EVENT.get(action)
        if signal is not None:
            signal.send_robust(
                sender=author.sender,
                key=key,
                db_alias=db_alias,
                attempt_uuid=attempt_uuid,
                actor=author.actor,
            )

    transaction.on_commit(after_commit, using=db_alias, robust=True)


def get_events(key: str | None, db_alias: str, limit: int) -> list[MigrationEvent]:
    """Return the newest events, oldest first."""
    events = MigrationEvent.objects.using(db_alias).order_by("-at")
    if key is not None:
        events = events.filter(key=key)
    return list(reversed(events[:limit]))


def add_attempt(attempt: MigrationAttempt, db_alias: str) -> None:
    """Store a new attempt together with its shard of kind plan."""
    attempt.save(using=db_alias, force_insert=True)
    plan = MigrationShard(
        id=MigrationShard.make_id(attempt.uuid, MigrationShard.PLAN),
        attempt_uuid=attempt.uuid,
        key=attempt.key,
        kind=MigrationShard.PLAN,
    )
    plan.save(using=db_alias, force_insert=True)


def update_attempt(attempt_uuid: uuid.UUID, db_alias: str, **fields: Any) -> None:
    """Set fields of an attempt."""
    MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid).update(**fields)


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


def wake_shards(attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Let shards that rest be taken at once."""
    MigrationShard.objects.using(db_alias).filter(
        attempt_uuid=attempt_uuid, status=MigrationShard.READY
    ).update(not_before=None, waiting_for="")


def claim_shard(
    shard: MigrationShard, db_alias: str, worker: str, lease_seconds: float, max_workers: int | None
) -> bool:
    """Try to take a shard that is ready or whose lease has run out; raise its fence if so.

    Args:
        shard: As it was read; updated in place on success.
        db_alias: The database.
        worker: Name of the worker.
        lease_seconds: How long the lease is.
        max_workers: Bound of live leases in the attempt, or None.

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
        live = shards.filter(
            attempt_uuid=shard.attempt_uuid, status=MigrationShard.RUNNING, lease_expires_at__gte=now
        )
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
    claimable = [MigrationShard.READY, MigrationShard.RUNNING]
    if not shards.filter(pk=shard.pk, fence=shard.fence, status__in=claimable).update(**fields):
        return False
    shard.refresh_from_db(using=db_alias)
    return shard.fence == fields["fence"]


def renew_lease(shard_id: str, fence: int, db_alias: str, expires_at: datetime) -> bool:
    """Extend the lease of the worker that holds this fence; return whether it still does."""
    held = MigrationShard.objects.using(db_alias).filter(
        pk=shard_id, fence=fence, status=MigrationShard.RUNNING
    )
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


def keep_failure(failure: MigrationFailure, db_alias: str) -> None:
    """Store a failure; one of the same object in the same attempt is replaced."""
    failure.save(using=db_alias)


def get_failures(attempt_uuid: uuid.UUID | None, db_alias: str) -> list[MigrationFailure]:
    """Return the failures of an attempt, oldest first."""
    failures = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    return sorted(failures, key=lambda failure: failure.failed_at)


def mark_failures_retried(attempt_uuid: uuid.UUID, db_alias: str) -> None:
    """Close the open failures of an attempt, because what failed is tried again."""
    MigrationFailure.objects.using(db_alias).filter(
        attempt_uuid=attempt_uuid, status=MigrationFailure.OPEN
    ).update(status=MigrationFailure.RETRIED)


def refuse(key: str, db_alias: str, action: str, status: str) -> IllegalMove:
    """Return the error that refuses an action in a status."""
    sentence = states.get_refusal(action, key, db_alias, status)
    return IllegalMove(sentence, key=key, db_alias=db_alias, status=status, action=action)


def has_tables(db_alias: str) -> bool:
    """Return whether the tables of massmigration exist in this database."""
    tables = connections[db_alias].introspection.table_names()
    return MigrationRecord._meta.db_table in tables
