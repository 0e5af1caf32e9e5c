"""The watch of a run on a queue: a delayed task that comes back as long as the run lasts."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from massmigration import recorder
from massmigration.backends.base import WATCH, BaseBackend
from massmigration.conf import conf
from massmigration.database import run_write
from massmigration.models import MigrationAttempt


def enqueue_watch(backend: BaseBackend, key: str, db_alias: str, attempt: MigrationAttempt) -> bool:
    """Have the run looked after once more, ``MASSMIGRATION_WATCH_SECONDS`` from now.

    Of several that want it at once, such as deliveries of the same task, one does it: else watches would multiply.

    Args:
        backend: The transport; one without workers elsewhere needs no watch.
        key: The migration's key.
        db_alias: The database.
        attempt: The attempt, as the caller has read it to decide that it is unwatched.

    Returns:
        Whether this caller is the one.
    """
    if not backend.has_workers:
        return False
    due_at = timezone.now() + timedelta(seconds=conf.watch_seconds)
    arguments = {"key": key, "db_alias": db_alias, "attempt": str(attempt.uuid)}
    name = f"watch {attempt.uuid} {due_at}"
    # Noted first: a queue that does not know delays calls us within enqueue(), and that one must find it.
    seen = attempt.watch_due_at
    if not run_write(db_alias, lambda: recorder.note_watch(attempt.uuid, db_alias, seen, due_at)):
        return False
    try:
        backend.enqueue(WATCH, arguments, db_alias=db_alias, delay_seconds=conf.watch_seconds, name=name)
    except Exception:
        run_write(db_alias, lambda: recorder.update_attempt(attempt.uuid, db_alias, watch_due_at=None))
        raise
    return True


def is_unwatched(attempt: MigrationAttempt) -> bool:
    """Return whether the watch of an attempt was never begun, or is overdue, as after a purge of the queue."""
    overdue_at = timezone.now() - timedelta(seconds=conf.watch_seconds)
    return attempt.watch_due_at is None or attempt.watch_due_at < overdue_at
