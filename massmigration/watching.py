"""The watch of a run on a queue: a delayed task that comes back as long as the run lasts."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.utils import timezone

from massmigration import recorder
from massmigration.backends.base import WATCH, BaseBackend
from massmigration.conf import conf
from massmigration.database import run_write


def enqueue_watch(backend: BaseBackend, key: str, db_alias: str, attempt_uuid: uuid.UUID) -> None:
    """Have the run looked after once more, ``MASSMIGRATION_WATCH_SECONDS`` from now.

    Args:
        backend: The transport; one without workers elsewhere needs no watch.
        key: The migration's key.
        db_alias: The database.
        attempt_uuid: The attempt.
    """
    if not backend.has_workers:
        return
    due_at = timezone.now() + timedelta(seconds=conf.watch_seconds)
    arguments = {"key": key, "db_alias": db_alias, "attempt": str(attempt_uuid)}
    name = f"watch {attempt_uuid} {due_at}"
    # Noted first: a queue that does not know delays calls us within enqueue(), and that one must find it.
    run_write(db_alias, lambda: recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=due_at))
    try:
        backend.enqueue(WATCH, arguments, db_alias=db_alias, delay_seconds=conf.watch_seconds, name=name)
    except Exception:
        run_write(db_alias, lambda: recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=None))
        raise


def is_unwatched(attempt_uuid: uuid.UUID, db_alias: str) -> bool:
    """Return whether the watch of an attempt was never begun, or is overdue, as after a purge of the queue."""
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    if attempt is None:
        return False
    overdue_at = timezone.now() - timedelta(seconds=conf.watch_seconds)
    return attempt.watch_due_at is None or attempt.watch_due_at < overdue_at
