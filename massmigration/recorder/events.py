"""Writes and reads events, the lines of the audit trail; the commit of one writes a log line and sends a signal."""

from __future__ import annotations

import uuid
from itertools import islice
from typing import Any, NamedTuple

from django.db import transaction

from massmigration import logs, record_cache, states
from massmigration.databases.redaction import clean, clean_values, make_storable
from massmigration.databases.registry import get_database
from massmigration.models import MigrationEvent


class Author(NamedTuple):
    """Who changes a state, and from where.

    Attributes:
        actor: A person's name or a worker's.
        origin: ``"command"``, ``"admin"``, ``"api"`` or ``"worker"``.
        user_id: Primary key of the Django user as text, if there is one.
        sender: Class of the migration, for the signals.
    """

    actor: str
    origin: str
    user_id: str = ""
    sender: type | None = None


def add_event(
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    attempt_uuid: uuid.UUID | None = None,
    detail: str = "",
    parameters: dict[str, Any] | None = None,
    *,
    reason: str = "",
    cause: logs.Cause | None = None,
) -> None:
    """Write one line of the audit trail; after the commit, write it to the log and send the action's signal."""
    detail, actor = make_storable(detail), clean(author.actor)
    entry = states.ACTIONS[action]
    status = entry.target or ""
    MigrationEvent.objects.using(db_alias).create(
        key=key,
        attempt_uuid=attempt_uuid,
        action=action,
        status=status,
        actor=actor[:255],
        user_id=author.user_id,
        origin=author.origin,
        detail=detail,
        parameters=clean_values(parameters or {}),
    )
    record_cache.forget(key, db_alias)

    def after_commit() -> None:
        record_cache.forget(key, db_alias)
        logs.log_event(
            key,
            db_alias,
            action,
            status=status,
            attempt=attempt_uuid,
            actor=actor,
            user_id=author.user_id,
            origin=author.origin,
            reason=reason,
            detail=detail,
            parameters=sorted(parameters or ()) or None,  # their values may be confidential
            cause=cause,
        )
        if entry.signal is not None:
            entry.signal.send_robust(
                sender=author.sender, key=key, db_alias=db_alias, attempt_uuid=attempt_uuid, actor=author.actor
            )

    transaction.on_commit(after_commit, using=db_alias, robust=True)


def get_events(key: str | None, db_alias: str, limit: int, app_label: str | None = None) -> list[MigrationEvent]:
    """Return the newest events of a migration, of an app, or of all; oldest first."""
    events = MigrationEvent.objects.using(db_alias).order_by("pk")  # which count backwards in time
    if key is not None:
        events = events.filter(key=key)
    elif app_label is not None and get_database(db_alias).has_free_filters:
        events = events.filter(key__startswith=f"{app_label}:")
    elif app_label is not None:  # where no two fields can be asked for at once
        own = (event for event in events if event.key.startswith(f"{app_label}:"))
        return list(reversed(list(islice(own, limit))))
    return list(reversed(events[:limit]))
