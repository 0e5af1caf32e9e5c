"""The watch of a run on a queue: a delayed task that comes back as long as the run lasts."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from massmigration import recorder
from massmigration.backends.base import WATCH, BaseBackend
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.databases.transactions import run_write
from massmigration.models import MigrationAttempt

LONGEST_REST: Final = timedelta(hours=1)
"""How seldom a run is looked after whose migration has no file."""


def get_rest(db_alias: str, attempt_uuid: uuid.UUID, launched_at: datetime) -> float:
    """Return in how many seconds to look again after a run whose migration has no file in this release.

    After a deploy the file may be back at once, or never: so the next look is as far away as the last sign of work.

    Args:
        db_alias: The database.
        attempt_uuid: The attempt.
        launched_at: When the run was last started, resumed or recovered.
    """
    signs = [shard.last_progress_at for shard in recorder.get_shards(attempt_uuid, db_alias)]
    worked_at = max([launched_at, *(sign for sign in signs if sign is not None)])
    rest = min(timezone.now() - worked_at, LONGEST_REST)
    return max(rest.total_seconds(), conf.watch_seconds)


def enqueue_watch(
    backend: BaseBackend, key: str, db_alias: str, attempt: MigrationAttempt, *, seconds: float | None = None
) -> bool:
    """Have the run looked after again, ``MASSMIGRATION_WATCH_SECONDS`` from now unless told otherwise.

    A run has one watch, the one whose time is noted: of several that want it at once, such as deliveries of the same
    task, the others' are superseded when they come, or they would multiply.

    Args:
        backend: The transport; one without workers elsewhere needs no watch.
        key: The migration's key.
        db_alias: The database.
        attempt: The attempt, as the caller has read it to decide that it is unwatched.
        seconds: In how many seconds; None for the setting.

    Returns:
        Whether this caller is the one.
    """
    if not backend.has_workers:
        return False
    delay = conf.watch_seconds if seconds is None else seconds
    due_at = timezone.now() + timedelta(seconds=delay)
    arguments = {"key": key, "db_alias": db_alias, "attempt": str(attempt.uuid), "due_at": due_at.isoformat()}
    name = f"watch {attempt.uuid} {due_at}"
    backend.enqueue(WATCH, arguments, db_alias=db_alias, delay_seconds=delay, name=name)
    # Noted afterwards: who is killed in between is delivered again, and nobody waits for a watch that will not come.
    seen = attempt.watch_due_at
    return run_write(db_alias, lambda: recorder.note_watch(attempt.uuid, db_alias, seen, due_at))


def is_superseded(attempt: MigrationAttempt, due_at: datetime | None) -> bool:
    """Return whether a watch that was delivered is to do nothing, as another one looks after the run.

    Args:
        attempt: The attempt as it is now.
        due_at: When the watch that was delivered is due; None if it does not say.
    """
    now, noted = timezone.now(), attempt.watch_due_at
    early_at = now + timedelta(seconds=conf.watch_seconds / 4)
    if due_at is not None and due_at > early_at and not clock.is_ahead(due_at, now, conf.watch_seconds):
        return True  # the queue knows no delays, and would call us again and again
    if noted is None or clock.is_ahead(noted, now, conf.watch_seconds):
        return False
    if due_at is None or due_at == noted:
        return noted > early_at
    return noted > now - timedelta(seconds=conf.watch_seconds / 2)


def is_unwatched(attempt: MigrationAttempt) -> bool:
    """Return whether the watch of an attempt was never begun, or is overdue, as after a purge of the queue.

    One that lies too far ahead was noted before the clock was set back: its task may come in an hour.
    """
    now, due_at = timezone.now(), attempt.watch_due_at
    if due_at is None or clock.is_ahead(due_at, now, conf.watch_seconds):
        return True
    return due_at < now - timedelta(seconds=conf.watch_seconds)
