"""Where a shard stands after a batch: what the batch sets, and what is really stored."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.utils import timezone

from massmigration import recorder
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.engine.kinds.processor import Batch, Written
from massmigration.engine.pacing import Pacer
from massmigration.models import MigrationShard


def get_new_values(
    shard: MigrationShard, batch: Batch, written: Written, pacer: Pacer, db_alias: str
) -> dict[str, Any]:
    """Return what the shard's columns are once the batch is committed."""
    return {
        "cursor": batch.cursor,
        **({} if batch.extension is None else {"extension": batch.extension}),
        "processed": shard.processed + len(batch.objects),
        "changed": shard.changed + (written.changed or 0),
        "left_matching": shard.left_matching + written.left_matching,
        "batches": shard.batches + 1,
        "retries": 0,
        "batch_size": pacer.size,
        "rate": pacer.rate,
        "last_progress_at": timezone.now(),
        **clock.make_lease(db_alias, conf.lease_seconds),
    }


def read_stored(shard: MigrationShard, db_alias: str) -> MigrationShard | None:
    """Return the shard as it is stored, read on a new connection if the present one is broken."""
    try:
        return recorder.get_shard(shard.pk, db_alias)
    except (DatabaseError, InterfaceError):
        connections[db_alias].close()
        return recorder.get_shard(shard.pk, db_alias)
