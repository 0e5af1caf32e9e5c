"""Who holds the shards of a migration: this process and its children, or somebody else."""

from __future__ import annotations

import os
from collections.abc import Iterable

from massmigration import wording
from massmigration.api import Progress
from massmigration.engine.leases import make_worker_name
from massmigration.engine.progress import ShardProgress


def get_live(progress: Progress) -> list[ShardProgress]:
    """Return the shards that somebody holds."""
    return [shard for shard in progress.shard_rows if shard.is_live]


def is_own(worker: str, child_pids: Iterable[int] = ()) -> bool:
    """Return whether a worker's name (``host:pid:token``) is that of this process or of one of its children."""
    host, _, _ = make_worker_name().rsplit(":", 2)
    return any(worker.startswith(f"{host}:{pid}:") for pid in (os.getpid(), *child_pids))


def has_own(progress: Progress, child_pids: Iterable[int] = ()) -> bool:
    """Return whether this process or one of its children holds a shard."""
    return any(is_own(shard.worker, child_pids) for shard in get_live(progress))


def get_others(progress: Progress, child_pids: Iterable[int] = ()) -> list[ShardProgress]:
    """Return the shards that somebody else holds."""
    return [shard for shard in get_live(progress) if not is_own(shard.worker, child_pids)]


def get_wait_note(progress: Progress) -> str:
    """Return what a worker without work waits for: the others' leases, if nothing else is to be done."""
    others = get_others(progress)
    expiries = [shard.lease_expires_at for shard in others if shard.lease_expires_at is not None]
    if not expiries:
        return ""
    workers = sorted({shard.worker.rpartition(":")[0] for shard in others})
    who = workers[0] if len(workers) == 1 else f"{len(workers)} workers"
    return (
        f"{who} {'is' if len(workers) == 1 else 'are'} at work; whatever is gone is taken over when its lease runs "
        f"out, at {wording.format_moment(min(expiries))}"
    )
