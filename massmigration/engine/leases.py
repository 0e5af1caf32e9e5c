"""A worker's time-limited right to a shard: taken, kept alive while an operation is long, and handed back."""

from __future__ import annotations

import copy
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import Final

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections
from django.utils import timezone

from massmigration import recorder
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.databases.base import LOCK_PATIENCE_SECONDS
from massmigration.databases.capacity import explain_shortage
from massmigration.databases.redaction import describe
from massmigration.databases.registry import get_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import DatabaseLocked, FenceLost
from massmigration.models import MigrationShard

logger = logging.getLogger("massmigration")

SHORTEST_CLAIM_DELAY: Final = 0.5
LONGEST_CLAIM_DELAY: Final = 8.0
"""Seconds at most between two tries to take a shard that others want as well; Firestore's locks are held for some."""

GIVE_BACK_SECONDS: Final = 8.0
"""For how long a worker of a queue tries to hand its shard back to a database that does not answer."""


def make_worker_name() -> str:
    """Return a name for this process that no other worker has."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(3)}"


def get_max_workers(migration: BaseMigration, db_alias: str) -> int | None:
    """Return how many workers may work on the migration at once, or None for any number.

    Where one connection writes at a time, as on SQLite, a second worker would only wait for the first.
    """
    if migration.serial or get_database(db_alias).has_single_writer:
        return 1
    return migration.max_workers


def is_claimable(shard: MigrationShard) -> bool:
    """Return whether a worker may take the shard now."""
    if clock.is_resting(shard, timezone.now()):
        return False
    if shard.status == MigrationShard.READY:
        return True
    return shard.status == MigrationShard.RUNNING and not is_live(shard)


def is_live(shard: MigrationShard) -> bool:
    """Return whether a worker holds the shard."""
    return shard.status == MigrationShard.RUNNING and clock.is_leased(shard, shard._state.db or DEFAULT_DB_ALIAS)


def claim(
    shard: MigrationShard,
    migration: BaseMigration,
    db_alias: str,
    worker: str,
    pattern: MigrationShard | None = None,
) -> bool:
    """Try to take a shard; return whether this worker holds it now, and update ``shard`` if so.

    A new one begins with the batch size and rate of ``pattern``. Raise DatabaseLocked if others kept writing, so that
    it is unknown.
    """
    bound, database = get_max_workers(migration, db_alias), get_database(db_alias)
    database.read_clock()

    def take() -> MigrationShard | None:
        taken = copy.copy(shard)  # if this is rolled back and repeated, it has to start from what was read
        is_taken = recorder.ShardRecorder(db_alias).claim(taken, worker, conf.lease_seconds, bound, pattern)
        return taken if is_taken else None

    taken = _take_unless_moved(shard, db_alias, take) if database.reads_block_writes else database.run_write(take)
    if taken is None:
        return False
    vars(shard).update(vars(taken))
    return True


def _take_unless_moved(
    shard: MigrationShard, db_alias: str, take: Callable[[], MigrationShard | None]
) -> MigrationShard | None:
    """Take a shard where each worker that reads it in a transaction keeps the others from writing it.

    So each try begins with a read that locks nothing, after which a worker that comes too late stops.
    """
    delay, deadline = SHORTEST_CLAIM_DELAY, time.monotonic() + LOCK_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        stored = recorder.get_shard(shard.pk, db_alias)
        if stored is None or (stored.fence, stored.status) != (shard.fence, shard.status):
            return None
        try:
            return run_write(db_alias, take, patience=0)
        except DatabaseLocked:
            if time.monotonic() + delay > deadline:
                raise
            time.sleep(random.uniform(0, delay))
            delay = min(delay * 4, LONGEST_CLAIM_DELAY)
    return None


def read_stored(shard: MigrationShard, db_alias: str) -> MigrationShard | None:
    """Return the shard as it is stored, read on a new connection if the present one is broken."""
    try:
        return recorder.get_shard(shard.pk, db_alias)
    except (DatabaseError, InterfaceError):
        connections[db_alias].close()
        return recorder.get_shard(shard.pk, db_alias)


def release(
    shard: MigrationShard,
    db_alias: str,
    *,
    rest_seconds: float = 0,
    waiting_for: str = "",
    rests: int | None = None,
    is_loss: bool = False,
) -> None:
    """Hand a shard back, so that any worker may continue after its cursor.

    Args:
        shard: As this worker holds it.
        db_alias: The database.
        rest_seconds: How long no worker may take it.
        waiting_for: Why it rests.
        rests: How often it has rested in a row after transient errors; None: as often as before.
        is_loss: Whether this worker counts as lost.
    """
    try:
        run_write(
            db_alias,
            lambda: recorder.ShardRecorder(db_alias).release_shard(
                shard, rest_seconds=rest_seconds, waiting_for=waiting_for, rests=rests, is_loss=is_loss
            ),
        )
    except FenceLost:
        logger.debug("Shard %s had been taken over before it was handed back.", shard.pk)


def give_back(shard: MigrationShard, db_alias: str) -> None:
    """Hand a shard back after an error, also when the database breaks connections or restarts.

    A worker that only lost its database is not to be counted as lost. If the database stays away for longer than
    ``GIVE_BACK_SECONDS``, the lease runs out.
    """
    deadline = time.monotonic() + GIVE_BACK_SECONDS
    while True:
        connections[db_alias].close_if_unusable_or_obsolete()
        try:
            release(shard, db_alias)
            return
        except Exception as error:
            if time.monotonic() > deadline:
                logger.debug("Shard %s was not handed back: %s", shard.pk, error)
                return
            time.sleep(SHORTEST_CLAIM_DELAY)


class Heartbeat:
    """Renews a lease during a long operation, in a separate thread with its own connection.

    ``has_hung`` is asked before each renewal: a worker that hangs loses its lease, although its process lives.
    """

    def __init__(self, shard: MigrationShard, db_alias: str, has_hung: Callable[[], bool] = lambda: False) -> None:
        self._has_hung = has_hung
        self._shard = shard  # its worker writes there what each batch has renewed
        self._shard_id, self._fence, self._alias = shard.pk, shard.fence, db_alias
        self._lease_seconds = conf.lease_seconds
        self._recorder = recorder.ShardRecorder(db_alias)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="massmigration-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        if not get_database(self._alias).is_in_memory:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _beat(self) -> None:
        with closing(connections[self._alias]):
            while not self._stopped.wait(self._lease_seconds / 3):
                if self._has_hung():
                    logger.warning("Shard %s is left to another worker: this one hangs.", self._shard_id)
                    return
                rest = clock.get_lease_rest(self._shard, self._alias)
                if rest is not None and rest > self._lease_seconds * 0.75:
                    continue  # a batch has just renewed it, and the next may be about to
                try:
                    if not self._recorder.renew_lease(self._shard_id, self._fence, self._lease_seconds):
                        return
                except Exception as error:  # the next beat may pass; the fence keeps us safe if none does
                    said = describe(error)
                    level = logging.WARNING if explain_shortage(said) else logging.DEBUG
                    logger.log(level, "Lease of shard %s was not renewed: %s", self._shard_id, said)
                    connections[self._alias].close_if_unusable_or_obsolete()
