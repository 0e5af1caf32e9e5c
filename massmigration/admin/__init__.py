"""The admin pages: where every migration stands, and the buttons that start and stop it."""

from __future__ import annotations

from massmigration.admin.record import MigrationRecordAdmin

__all__ = ["MigrationRecordAdmin"]
