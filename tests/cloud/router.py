"""Which tables live where: sessions, users and the admin's log on SQL only, what is migrated on all."""

from __future__ import annotations

from typing import Any

from django.db import models

from massmigration.databases.registry import get_database

EVERYWHERE = frozenset({"massmigration", "cloudapp"})
DEFAULT_ONLY = frozenset({"admin", "auth", "contenttypes", "sessions", "tasks"})


class CloudRouter:
    """Keep on ``default`` what the connectors cannot do, or what a site has only once."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        """Return ``default`` for what lives there only."""
        return "default" if model._meta.app_label in DEFAULT_ONLY else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Return whether the app has tables on the database."""
        if app_label in DEFAULT_ONLY:
            return db == "default"
        return app_label in EVERYWHERE or get_database(db).write_limit is None
