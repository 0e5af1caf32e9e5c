"""The command that does one thing to mass migrations: run, pause, resume, cancel, retry, and so on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from massmigration import wording
from massmigration.management import listing
from massmigration.management.base import MassMigrationCommand
from massmigration.management.verbs import VERBS, add_base_arguments


class Command(MassMigrationCommand):
    """``manage.py massmigration VERB [APP NAME]``; without a verb it lists them."""

    help = "Runs, pauses, resumes, cancels, retries, watches … mass migrations. Without a verb it lists them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare a sub-command for each verb."""
        subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
        for verb in VERBS.values():
            # A verb may redefine one of Django's options.
            subparser = subparsers.add_parser(
                verb.name, aliases=verb.aliases, help=verb.help, description=verb.help, conflict_handler="resolve"
            )
            add_base_arguments(self, subparser)
            verb.add_arguments(subparser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, or list the migrations."""
        name = options["verb"]
        if name is None:
            listing.write_text(self, listing.get_rows([], None), [])
            command = wording.make_command("massmigration run APP NAME")
            self.stdout.write(f"\nTo run one: {command}")
            return
        verb = next(verb for verb in VERBS.values() if name in (verb.name, *verb.aliases))
        self.leave(verb.handle(self, options))
