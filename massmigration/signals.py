"""Signals that are sent when a migration's record changes its status.

Each is sent with ``sender`` (the migration's class, or None if its file is gone), ``key``, ``db_alias``,
``attempt_uuid`` and ``actor``. Receivers are called after the change is committed, with ``send_robust``: an error in
one is logged and harms nothing.
"""

from __future__ import annotations

from typing import Final

from django.dispatch import Signal

migration_started: Final = Signal()
migration_applied: Final = Signal()
migration_failed: Final = Signal()
migration_paused: Final = Signal()
migration_resumed: Final = Signal()
migration_cancelled: Final = Signal()
migration_rolled_back: Final = Signal()
