"""The Django app: registers the checks and gives hand-written migrations their life-cycle."""

from __future__ import annotations

from django.apps import AppConfig


class MassMigrationConfig(AppConfig):
    """Configuration of the app ``massmigration``."""

    name = "massmigration"
    label = "massmigration"
    verbose_name = "Mass migrations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and install what ``BaseMigration`` offers to a hand-written ``launch()``."""
        from massmigration.checks import register_checks
        from massmigration.definitions.base import BaseMigration
        from massmigration.executor.lifecycle import RecordLifecycle

        register_checks()
        BaseMigration.lifecycle = RecordLifecycle()
