"""Reads shards, in the order in which people count them, and deletes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet

from massmigration.databases import clock
from massmigration.databases.registry import get_database
from massmigration.models import MigrationShard

FREE: Final[dict[str, Any]] = {"worker": "", **clock.NO_LEASE}
"""The columns of a shard that no worker holds."""


def get_shard(shard_id: str, db_alias: str) -> MigrationShard | None:
    """Return the shard, or None."""
    return MigrationShard.objects.using(db_alias).filter(pk=shard_id).first()


def get_shards(attempt_uuid: uuid.UUID | None, db_alias: str, *, with_payloads: bool = True) -> list[MigrationShard]:
    """Return all shards of an attempt, sorted by pass, type (plan, range, finish) and number.

    Args:
        attempt_uuid: The attempt; without one there are none.
        db_alias: The database.
        with_payloads: Whether to read what each is about, too, which may be a list of many keys.
    """
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
