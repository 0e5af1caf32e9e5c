"""What a person can do on the pages, as one table, and how an action is carried out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from massmigration import api
from massmigration.databases.redaction import describe, get_message
from massmigration.exceptions import MassMigrationError

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

logger = logging.getLogger("massmigration")


class Action(NamedTuple):
    """One button.

    Attributes:
        name: The action as ``api.get_allowed_actions`` names it.
        path: Last part of its URL.
        label: The button's text; an ellipsis says that a page asks before anything happens.
        submit: Text of the button on that page.
        effect: What will happen, for that page.
        done: What happened, for the message afterwards; follows the key.
        call: The function of the API.
    """

    name: str
    path: str
    label: str
    submit: str
    effect: str
    done: str
    call: Callable[..., Any]

    @property
    def asks_first(self) -> bool:
        """Whether the button leads to the confirmation page instead of doing it at once."""
        return self.label.endswith("…")

    @property
    def is_launch(self) -> bool:
        """Whether it makes a new attempt, so that rows and dependencies are to be shown before."""
        return self.name in ("start", "restart")


ACTIONS: Final = {
    action.path: action
    for action in (
        Action(
            "start",
            "run",
            "Run…",
            "Run migration",
            "A new attempt is made, and workers begin with the first row. It can be paused at any time.",
            "was started",
            api.start_migration,
        ),
        Action(
            "recover",
            "recover",
            "Recover",
            "Recover migration",
            "Key ranges whose worker is gone are handed to a new worker, which continues where that one stopped.",
            "was handed to a new worker",
            api.recover_migration,
        ),
        Action(
            "pause",
            "pause",
            "Pause",
            "Pause migration",
            "Workers stop after the batch in hand. It can be resumed where it stopped.",
            "is paused",
            api.pause_migration,
        ),
        Action(
            "resume",
            "resume",
            "Resume",
            "Resume migration",
            "The work continues where it stopped.",
            "was resumed",
            api.resume_migration,
        ),
        Action(
            "retry",
            "retry",
            "Retry",
            "Retry migration",
            "What failed is tried again, then the work continues where it stopped.",
            "is tried again",
            api.retry_migration,
        ),
        Action(
            "accept",
            "accept",
            "Accept failures…",
            "Accept these failures",
            "The objects below stay as they are, and count as dealt with. When no failure is open any more, a run that "
            "has failed continues to its end.",
            "has its failures accepted",
            api.accept_failures,
        ),
        Action(
            "cancel",
            "cancel",
            "Cancel…",
            "Cancel migration",
            "The attempt is given up. Rows that were migrated stay migrated; the next run is a new attempt.",
            "is cancelled",
            api.cancel_migration,
        ),
        Action(
            "restart",
            "restart",
            "Restart…",
            "Restart from the beginning",
            "A new attempt visits every row that the migration selects now, from the first one, also those that were "
            "migrated before.",
            "was started from the beginning",
            api.restart_migration,
        ),
        Action(
            "fake",
            "fake",
            "Mark as applied…",
            "Mark as applied",
            "The migration counts as applied although no row is touched. Do this only if the data already is as the "
            "migration would leave it.",
            "is marked as applied; no row was touched",
            api.fake_migration,
        ),
        Action(
            "reset",
            "reset",
            "Reset to not run…",
            "Reset to not run",
            "The record is forgotten, so that the migration counts as not run. No row is changed back, and the events "
            "stay.",
            "counts as not run",
            api.reset_migration,
        ),
    )
}
"""By path, in the order of the buttons."""


class ActionFailed(Exception):
    """An action was refused or failed; the message is the sentence to show."""


def perform(action: Action, key: str, db_alias: str, user: AbstractBaseUser, **options: Any) -> str:
    """Carry out an action and return the sentence that says so.

    Args:
        action: A value of ``ACTIONS``.
        key: The migration's key.
        db_alias: The database.
        user: The person who pressed the button; the audit trail names them.
        **options: What else the API is to be given.

    Raises:
        ActionFailed: The API refused it, or the author's code raised an error.
    """
    try:
        done = action.call(key, db_alias, user=user, origin="admin", **options)
    except MassMigrationError as error:
        raise ActionFailed(_begin_with_word(get_message(error), key)) from error
    except Exception as error:  # get_queryset() and before_start() are the author's and may raise anything
        logger.exception("%s: the action %r failed on database '%s'", key, action.name, db_alias)
        raise ActionFailed(
            f"Migration {key} stays as it was on database '{db_alias}', because its code raised an error: "
            f"{describe(error)}"
        ) from error
    if isinstance(done, api.Acceptance):
        return _describe(done, key, db_alias)
    return f"Migration {key} {action.done} on database '{db_alias}'."


def _describe(done: api.Acceptance, key: str, db_alias: str) -> str:
    if not done.accepted_count and not done.goes_on:
        return f"Nothing was left to accept of migration {key} on database '{db_alias}'."
    count = f"{done.accepted_count} failure{'' if done.accepted_count == 1 else 's'}"
    rest = " The run continues to its end." if done.goes_on else ""
    if done.open_count:
        rest = f" {done.open_count} stay{'s' if done.open_count == 1 else ''} open."
    verb = "was" if done.accepted_count == 1 else "were"
    return f"{count} of migration {key} on database '{db_alias}' {verb} accepted.{rest}"


def _begin_with_word(sentence: str, key: str) -> str:
    """Django's admin makes the first letter of a message a capital, which would be a wrong key."""
    return f"Migration {sentence}" if sentence.startswith(key) else sentence
