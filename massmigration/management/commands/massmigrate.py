"""The command that applies mass migrations: one, an app's, or all that are pending."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from massmigration.management import migrate
from massmigration.management.base import MassMigrationCommand


class Command(MassMigrationCommand):
    """``manage.py massmigrate [APP [NAME]]``."""

    help = (
        "Applies a mass migration and what it depends on, or all that is pending. It joins what runs, and "
        "continues what was interrupted. Exit code: 0 all applied, 1 one failed, 2 wrong usage, 3 paused, cancelled or "
        "blocked, 130 interrupted, 143 terminated."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        migrate.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply them."""
        self.leave(migrate.migrate(self, options))
