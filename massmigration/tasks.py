"""The functions that queues call by name, with JSON arguments only; calling them twice or late does no harm."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime
from functools import partial
from typing import Final

from django.utils import timezone

from massmigration import logs, recorder
from massmigration.backends.base import RUN_SHARD, BaseBackend, get_backend
from massmigration.databases import clock
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.engine import slice as slices
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import claim, get_max_workers, give_back, is_claimable, make_worker_name, release
from massmigration.engine.slice_log import get_fields
from massmigration.exceptions import LoadError
from massmigration.models import MigrationShard
from massmigration.record_cache import is_wanted
from massmigration.recorder import Author
from massmigration.watch import enqueue_watch, find_lost, get_rest, is_superseded, is_unwatched, take_free_places

logger = logging.getLogger("massmigration")

CLOCK_MARGIN_SECONDS: Final = 0.5
"""How much the clocks of two machines may differ."""


def run_shard(shard_id: str, db_alias: str) -> None:
    """Work on one shard for one slice, and enqueue what comes next."""
    shard = recorder.get_shard(shard_id, db_alias)
    if shard is None or not is_wanted(shard.key, db_alias, shard.attempt_uuid):
        return
    migration = _load(shard.key, db_alias, shard.attempt_uuid)
    if migration is None:
        return
    backend = get_backend(migration)
    if not is_claimable(shard) or not _is_workable(shard, migration, db_alias):
        return
    if not claim(shard, migration, db_alias, make_worker_name()):
        return  # another delivery works on it; the watch continues whatever happens to that one
    try:
        attempt = recorder.get_attempt(shard.attempt_uuid, db_alias)
        if attempt is not None and is_unwatched(attempt):
            enqueue_watch(backend, shard.key, db_alias, attempt)
        if attempt is not None and not versions.is_current(attempt):  # since a moment ago
            _log_other_version(shard, db_alias)
            release(shard, db_alias, waiting_for=versions.WAITS)
            return
        outcome = slices.Slice(shard, migration, db_alias, seconds=backend.slice_seconds).run()
    except Exception:
        give_back(shard, db_alias)  # the task is delivered again, and must not meet its own lease
        raise
    for next_shard in _find_next(shard, migration, db_alias, outcome):
        # Named after the visit before it as well: a queue keeps refusing the name of a task that was turned away.
        _enqueue(backend, next_shard, db_alias, f"after {shard.pk} {shard.fence}")


def _is_workable(shard: MigrationShard, migration: BaseMigration, db_alias: str) -> bool:
    """Return whether this process has the version of the file that the run is worked with, and it fits the shards.

    If it is another version, the shard is left to the watch, which knows the version that serves: a task that is
    enqueued from here would come back here.
    """
    attempt = recorder.get_attempt(shard.attempt_uuid, db_alias)
    if attempt is None:
        return False
    if versions.is_current(attempt):
        author = Author("queue task", "worker", sender=type(migration))
        if not attempt.source_hash:
            run_write(db_alias, lambda: versions.adopt(attempt.uuid, db_alias, author, versions.WORKER))
        return versions.ensure_fit(migration, db_alias, attempt, author)
    _log_other_version(shard, db_alias)
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).record_waiting(shard, versions.WAITS))
    if is_unwatched(attempt):
        enqueue_watch(get_backend(migration), shard.key, db_alias, attempt)
    return False


def _log_other_version(shard: MigrationShard, db_alias: str) -> None:
    logger.warning(
        "%s: this worker has another version of the file than the run is worked with, so shard %s waits for the next "
        "watch",
        shard.key,
        shard.pk,
        extra=get_fields(shard, db_alias, "other_version"),
    )


def watch(key: str, db_alias: str, attempt: str, due_at: str = "") -> None:
    """Enqueue shards whose worker died or whose task got lost, and itself for the next look.

    The record may have another attempt by now, or have stopped. ``due_at`` is when this look was due, in ISO format: it
    distinguishes the looks at one run.
    """
    attempt_uuid, now = uuid.UUID(attempt), timezone.now()
    if not is_wanted(key, db_alias, attempt_uuid):
        return
    stored = recorder.get_attempt(attempt_uuid, db_alias)
    if stored is None or is_superseded(stored, datetime.fromisoformat(due_at) if due_at else None):
        return
    migration = _load(key, db_alias, attempt_uuid)
    backend = get_backend(migration or _make_nameless(key, stored.backend))
    record = recorder.get_record(key, db_alias)
    launched_at = record.moved_at if record else now
    rest = get_rest(db_alias, attempt_uuid, launched_at) if migration is None else None
    # First of all, so that another look follows if this process is killed.
    if not enqueue_watch(backend, key, db_alias, stored, seconds=rest) or migration is None:
        return
    author = Author("watch task", "worker", sender=type(migration))
    if not versions.adopt_at_watch(stored, db_alias, author):
        logger.warning(
            "%s: this watch has a version of the file that was replaced, so it enqueues nothing; a watch of the "
            "current version will, or a recovery that continues with this one",
            key,
            extra=logs.fields(event="other_version", key=key, db_alias=db_alias, attempt=attempt_uuid),
        )
        return
    if not versions.ensure_fit(migration, db_alias, stored, author):
        return
    make_finish_if_due(migration, db_alias, attempt_uuid)
    for shard in find_lost(migration, db_alias, attempt_uuid, launched_at, now):
        logger.warning(
            "%s: shard %s has lost its worker or its task, and is enqueued again",
            key,
            shard.pk,
            extra=get_fields(shard, db_alias, "lost"),
        )
        _enqueue(backend, shard, db_alias, f"found {now:%Y-%m-%dT%H:%M:%S}")
        run_write(db_alias, partial(recorder.ShardRecorder(db_alias).record_enqueued, shard))


def _make_nameless(key: str, backend: str) -> BaseMigration:
    """Return a stand-in for a definition that is missing: it runs where the attempt was started."""
    definition = type("Migration", (BaseMigration,), {"backend": backend or None})
    nameless: BaseMigration = definition(*key.split(":"))
    return nameless


def _load(key: str, db_alias: str, attempt_uuid: uuid.UUID) -> BaseMigration | None:
    """Return the definition; None if this version of the code has none, so that the run rests until one has."""
    try:
        return get_loader().get(key)
    except LoadError as error:
        extra = logs.fields(event="missing", key=key, db_alias=db_alias, attempt=attempt_uuid)
        logger.warning("%s", error, extra=extra)
        return None


def _find_next(shard: MigrationShard, migration: BaseMigration, db_alias: str, outcome: str) -> list[MigrationShard]:
    """Return the shards that only the worker of this one can enqueue now."""
    if not is_wanted(shard.key, db_alias, shard.attempt_uuid):
        return []
    if outcome in (slices.TIME_UP, slices.RESTING):
        stored = recorder.get_shard(shard.pk, db_alias)
        return [stored] if stored is not None else []
    if outcome != slices.DONE:
        return []
    make_finish_if_due(migration, db_alias, shard.attempt_uuid)
    shards = recorder.get_shards(shard.attempt_uuid, db_alias)
    ready = [other for other in shards if other.status == MigrationShard.READY]
    if shard.kind != MigrationShard.RANGE:
        return take_free_places(ready, shards, migration, db_alias)
    if not ready:
        new = get_kind(migration).split_largest(shards, db_alias)
        return [new] if new is not None else []
    if ready[0].kind == MigrationShard.FINISH:
        return ready
    if get_max_workers(migration, db_alias) is None:
        return []  # each of them has a task
    # So do those that rest; others were turned away, or wait until there is room for one more worker.
    return take_free_places(list(filter(is_claimable, ready)), shards, migration, db_alias)


def _enqueue(backend: BaseBackend, shard: MigrationShard, db_alias: str, visit: str = "") -> None:
    rest, now = 0.0, timezone.now()
    if shard.not_before is not None and not clock.is_ahead(shard.enqueued_at, now):
        # With a margin, because a task that comes too early is not enqueued again.
        rest = (shard.not_before - now).total_seconds() + CLOCK_MARGIN_SECONDS
    arguments = {"shard_id": shard.pk, "db_alias": db_alias}
    # A fence belongs to one visit: enqueuing the shard again after the same visit means the same task.
    name = f"{shard.pk} {shard.fence} {shard.enqueued_at} {visit}"
    backend.enqueue(RUN_SHARD, arguments, db_alias=db_alias, delay_seconds=max(0.0, rest), name=name)
