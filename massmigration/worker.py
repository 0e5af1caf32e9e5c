"""The loop of a local worker, which finds in the shard table what is to do."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Final

from django.db import connections

from massmigration import logs, recorder
from massmigration.conf import conf
from massmigration.databases.transactions import is_document_store, is_transient
from massmigration.definitions.base import BaseMigration, make_own
from massmigration.engine import slice as slices
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import claim, get_max_workers, is_claimable, is_live, make_worker_name, release
from massmigration.exceptions import DatabaseLocked
from massmigration.models import MigrationShard
from massmigration.record_cache import is_wanted

logger = logging.getLogger("massmigration")

POLL_SECONDS: Final = 0.2
LONGEST_POLL_SECONDS: Final = 1.0
DATABASE_PATIENCE_SECONDS: Final = 120.0
"""For how long a worker waits for a database that restarts."""


def work(
    migration: BaseMigration,
    db_alias: str,
    attempt_uuid: uuid.UUID,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[], None] = lambda: None,
    adopts: bool = True,
) -> None:
    """Work off the shards of an attempt in this process, until it ends or this process is to stop.

    Args:
        migration: The definition.
        db_alias: The database.
        attempt_uuid: The attempt; a record with another one is left alone.
        should_stop: Asked between batches and objects, and while waiting.
        on_progress: Called after each batch, and while waiting for other workers.
        adopts: Whether this process has just started, so that its version of the file is the one to work with.

    Raises:
        VersionReplaced: The attempt is worked with another version of the file.
    """
    worker, migration = make_worker_name(), make_own(migration)
    admission = versions.Admission(migration, db_alias, adopts=adopts)
    poll_seconds = POLL_SECONDS
    shard: MigrationShard | None = None
    failing_since: float | None = None
    while not should_stop():
        try:
            if failing_since is not None and shard is not None:  # its lease is ours still, and would be waited for
                release(shard, db_alias)
            if not is_wanted(migration.key, db_alias, attempt_uuid) or not admission.ask(attempt_uuid):
                return
            shard = _claim_next(migration, db_alias, attempt_uuid, worker)
            if shard is not None:
                slices.Slice(shard, migration, db_alias, should_stop=should_stop, on_batch=on_progress).run()
                poll_seconds = POLL_SECONDS
            on_progress()
            failing_since = None
        except Exception as error:
            failing_since = failing_since or time.monotonic()
            if not is_transient(error) or time.monotonic() - failing_since > DATABASE_PATIENCE_SECONDS:
                raise
            logger.warning(
                "%s: database '%s' does not answer: %s",
                migration.key,
                db_alias,
                error,
                extra=logs.fields(event="no_answer", key=migration.key, db_alias=db_alias, attempt=attempt_uuid),
            )
            connections[db_alias].close()
        if shard is None or failing_since is not None:
            time.sleep(poll_seconds * random.uniform(0.5, 1.5))  # or all workers would want the same at the same time
            poll_seconds = min(poll_seconds * 1.5, LONGEST_POLL_SECONDS, max(conf.lease_seconds / 5, 0.05))


def _claim_next(migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID, worker: str) -> MigrationShard | None:
    if make_finish_if_due(migration, db_alias, attempt_uuid):
        logger.debug("%s: every range is done", migration.key)
    shards = recorder.get_shards(attempt_uuid, db_alias)
    has_open_range = any(shard.kind == MigrationShard.RANGE and shard.status != MigrationShard.DONE for shard in shards)
    worked = [shard for shard in shards if shard.last_progress_at is not None]
    pattern = max(worked, key=lambda shard: shard.last_progress_at or shard.created_at, default=None)
    # Where a claim that another forestalls costs seconds, workers that begin together do not want the same shard.
    in_turn = random.sample(shards, len(shards)) if is_document_store(db_alias) else shards
    for shard in in_turn:
        if shard.kind == MigrationShard.FINISH and has_open_range:
            continue
        if is_claimable(shard) and _take(shard, migration, db_alias, worker, pattern):
            return shard
    bound = get_max_workers(migration, db_alias)
    live_count = sum(is_live(shard) for shard in shards)
    if live_count and (bound is None or live_count < bound):
        new = get_kind(migration).split_largest(shards, db_alias)
        if new is not None and _take(new, migration, db_alias, worker):
            return new
    return None


def _take(
    shard: MigrationShard,
    migration: BaseMigration,
    db_alias: str,
    worker: str,
    pattern: MigrationShard | None = None,
) -> bool:
    try:
        return claim(shard, migration, db_alias, worker, pattern)
    except DatabaseLocked:  # by an operation that takes long, most likely: the next round looks again
        return False
