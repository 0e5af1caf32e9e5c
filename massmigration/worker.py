"""The loop of a local worker, and what a command needs to start workers and to recognize its own."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from django.db import connections

from massmigration import logs, recorder
from massmigration.backends.base import get_backend
from massmigration.backends.local import check_interpreter, check_second_process, make_environment, make_worker_command
from massmigration.backends.logfiles import make_log_path, open_log
from massmigration.conf import conf
from massmigration.databases.registry import get_database, is_transient
from massmigration.definitions.base import BaseMigration, make_own
from massmigration.engine import slice as slices
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import claim, get_max_workers, is_claimable, is_live, make_worker_name, release
from massmigration.exceptions import BackendUnreachable, DatabaseLocked
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
    """Work off the shards of an attempt in this process, until it ends or this process has to stop.

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
            if failing_since is not None and shard is not None:  # its lease is still ours, and we would wait for it
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
            time.sleep(poll_seconds * random.uniform(0.5, 1.5))  # or all workers would try at the same time
            poll_seconds = min(poll_seconds * 1.5, LONGEST_POLL_SECONDS, max(conf.lease_seconds / 5, 0.05))


def _claim_next(migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID, worker: str) -> MigrationShard | None:
    if make_finish_if_due(migration, db_alias, attempt_uuid):
        logger.debug("%s: every range is done", migration.key)
    shards = recorder.get_shards(attempt_uuid, db_alias)
    has_open_range = any(shard.kind == MigrationShard.RANGE and shard.status != MigrationShard.DONE for shard in shards)
    worked = [shard for shard in shards if shard.last_progress_at is not None]
    pattern = max(worked, key=lambda shard: shard.last_progress_at or shard.created_at, default=None)
    # Where a claim that another worker wins costs seconds, workers that start together try different shards.
    in_turn = random.sample(shards, len(shards)) if get_database(db_alias).reads_block_writes else shards
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
    shard: MigrationShard, migration: BaseMigration, db_alias: str, worker: str, pattern: MigrationShard | None = None
) -> bool:
    try:
        return claim(shard, migration, db_alias, worker, pattern)
    except DatabaseLocked:  # most likely by a long operation: the next round looks again
        return False


def works_elsewhere(migration: BaseMigration) -> bool:
    """Return whether the backend has workers elsewhere, so that a command only starts and watches."""
    return get_backend(migration).has_workers


def limit_workers(migration: BaseMigration, db_alias: str, wanted: int) -> tuple[int, str]:
    """Return how many of the wanted worker processes can be of use, and why not all.

    Raises:
        ConfigurationError: A second process could not see this database or load these settings.
        BackendUnreachable: There is no interpreter to start it with.
    """
    if wanted > 1:
        check_second_process(db_alias)
        check_interpreter()
    bound = get_max_workers(migration, db_alias)
    if wanted == 1 or bound is None or bound >= wanted:
        return wanted, ""
    if migration.serial:
        return bound, "it is serial"
    if bound == migration.max_workers:
        return bound, f"its max_workers is {bound}"
    return bound, f"database '{db_alias}' lets one process write at a time"


def is_own(worker: str, child_pids: Iterable[int] = ()) -> bool:
    """Return whether a worker's name (``host:pid:token``) is that of this process or of one of its children."""
    host, _, _ = make_worker_name().rsplit(":", 2)
    return any(worker.startswith(f"{host}:{pid}:") for pid in (os.getpid(), *child_pids))


def make_child(key: str, db_alias: str, attempt_uuid: uuid.UUID) -> tuple[list[str], Path]:
    """Return the command of a worker process for an attempt, and where it logs.

    Raises:
        BackendUnreachable: There is no interpreter to start it with.
    """
    return make_worker_command(key, db_alias, attempt_uuid), make_log_path(key, attempt_uuid)


def start_child(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start a worker process that ends with this one; its output is appended to the log.

    Raises:
        BackendUnreachable: It could not be started.
    """
    environment = make_environment()
    try:
        with open_log(log_path) as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
    except OSError as error:
        raise BackendUnreachable(f"A worker process could not be started: {error}.") from error
