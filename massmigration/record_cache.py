"""Caches the status of a record in a worker for MASSMIGRATION_RECORD_CACHE_TIMEOUT seconds.

Safety does not depend on it: a worker with a stale status is refused by the fence of its shard.
"""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

from massmigration import states
from massmigration.conf import conf
from massmigration.models import MigrationRecord


class Standing(NamedTuple):
    """What a worker needs to know of a record."""

    status: str
    attempt_uuid: uuid.UUID | None


_NOT_RUN = Standing(states.NOT_RUN, None)
_cache: dict[tuple[str, str], tuple[float, Standing]] = {}


def read_standing(key: str, db_alias: str) -> Standing:
    """Read status and attempt of a record from its database, and remember them."""
    # The whole row: on Datastore, reading two of its fields would need another index.
    record = MigrationRecord.objects.using(db_alias).filter(pk=key).first()
    standing = Standing(record.status, record.attempt_uuid) if record is not None else _NOT_RUN
    _cache[db_alias, key] = time.monotonic(), standing
    return standing


def get_standing(key: str, db_alias: str) -> Standing:
    """Return status and attempt of a record, not older than the time-out."""
    read_at, standing = _cache.get((db_alias, key), (0.0, _NOT_RUN))
    if read_at and time.monotonic() - read_at < conf.record_cache_timeout:
        return standing
    return read_standing(key, db_alias)


def is_wanted(key: str, db_alias: str, attempt_uuid: uuid.UUID) -> bool:
    """Read whether a record is active with this attempt, so that its shards may be worked on."""
    standing = read_standing(key, db_alias)
    return standing.status in states.ACTIVE and standing.attempt_uuid == attempt_uuid


def forget(key: str, db_alias: str) -> None:
    """Drop what is remembered of a record, because this process has just changed it."""
    _cache.pop((db_alias, key), None)
