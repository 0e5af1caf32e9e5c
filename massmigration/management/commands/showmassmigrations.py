"""The command that lists mass migrations and where they stand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from massmigration.management import exits, listing
from massmigration.management.base import MassMigrationCommand
from massmigration.management.display import format_json


class Command(MassMigrationCommand):
    """``manage.py showmassmigrations [APP]…``."""

    help = "Lists all mass migrations, on all databases, and where they stand."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("app_labels", metavar="APP", nargs="*", help="Only those of these apps.")
        parser.add_argument(
            "--database", metavar="ALIAS", action="append", help="Only on this one; may be given more than once."
        )
        parser.add_argument("--check", action="store_true", help="Exit with 1 while something is unapplied.")
        parser.add_argument("--format", choices=["text", "json"], default="text", help="Default: text.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the list."""
        rows = listing.get_rows(options["app_labels"], options["database"])
        if options["format"] == "json":
            self.stdout.write(format_json([row.as_dict() for row in rows]))
        else:
            listing.write_text(self, rows, options["app_labels"])
        if options["check"] and listing.has_unapplied(rows, options["app_labels"]):
            self.leave(exits.FAILED)
