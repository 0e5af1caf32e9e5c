"""Looks at a migration again and again until it is at work no more, or the command is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from django.db import DatabaseError, InterfaceError, connections

from massmigration import api, states
from massmigration.api import Progress
from massmigration.management.interrupts import Interrupts

POLL_SECONDS: Final = 0.5
DATABASE_PATIENCE_SECONDS: Final = 60.0
"""For how long watching goes on while the database does not answer."""


def poll(key: str, db_alias: str, interrupts: Interrupts, look: Callable[[Progress], None]) -> None:
    """Call ``look`` with the progress twice a second.

    Args:
        key: The migration.
        db_alias: The database; a connection that broke is opened again.
        interrupts: Whether the command was asked to stop.
        look: Does something with the progress.
    """
    answered_at = time.monotonic()
    while not interrupts.should_stop():
        try:
            progress = api.get_progress(key, db_alias)
            if progress.status not in states.ACTIVE:
                return
            look(progress)
            answered_at = time.monotonic()
        except (DatabaseError, InterfaceError):
            if time.monotonic() - answered_at > DATABASE_PATIENCE_SECONDS:
                raise
            connections[db_alias].close()
        time.sleep(POLL_SECONDS)
