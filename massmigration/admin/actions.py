"""Carries out what a person presses, and says in a sentence what came of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from massmigration import api, states, wording
from massmigration.databases.redaction import describe, get_message
from massmigration.exceptions import MassMigrationError
from massmigration.states import Action

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

logger = logging.getLogger("massmigration")

BUTTONS: Final = {states.ACTIONS[name].verb: states.ACTIONS[name] for name in states.PERSONS_ACTIONS}
"""What a person can press, in the order of the buttons, by the last part of its URL."""


class ActionFailed(Exception):
    """An action was refused or failed; the message is the sentence to show."""


def perform(action: Action, key: str, db_alias: str, user: AbstractBaseUser, **options: Any) -> str:
    """Carry out an action for the person who pressed the button, and return the sentence that says so.

    Raises:
        ActionFailed: The API refused it, or the author's code raised an error.
    """
    try:
        done = api.ACTIONS[action.name](key, db_alias, user=user, origin="admin", **options)
    except MassMigrationError as error:
        message = get_message(error)  # the admin makes its first letter a capital, which must not be that of a key
        raise ActionFailed(f"Migration {message}" if message.startswith(key) else message) from error
    except Exception as error:  # get_queryset() and before_start() are the author's and may raise anything
        logger.exception("%s: the action %r failed on database '%s'", key, action.name, db_alias)
        raise ActionFailed(
            f"Migration {key} stays as it was on database '{db_alias}', because its code raised an error: "
            f"{describe(error)}"
        ) from error
    if isinstance(done, api.Acceptance):
        accepted = wording.describe_accepted(done.accepted_count, done.open_count, goes_on=done.goes_on)
        return f"Migration {key} on database '{db_alias}': {accepted}."
    return wording.describe_done(action.name, key, db_alias)
