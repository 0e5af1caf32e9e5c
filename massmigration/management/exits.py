"""The exit codes of the commands, and which of them a status or an error stands for."""

from __future__ import annotations

from typing import Final

from django.core.management.base import CommandError

from massmigration import states
from massmigration.exceptions import (
    AcceptRefused,
    ConfigurationError,
    DatabaseNotAllowed,
    DependencyNotApplied,
    IllegalMove,
    InvalidDefinition,
    LoadError,
    MassMigrationError,
    VersionReplaced,
    WaitTimedOut,
)

APPLIED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
STOPPED: Final = 3
"""Paused, cancelled, blocked or timed out: a person has to act first."""
INTERRUPTED: Final = 130
TERMINATED: Final = 143


class Leave(SystemExit):
    """Ends our own commands with an exit code; any other SystemExit comes from an author's code."""


_BLOCKED: Final = (DependencyNotApplied, VersionReplaced, WaitTimedOut)
_MISUSED: Final = (ConfigurationError, InvalidDefinition, LoadError, DatabaseNotAllowed, IllegalMove, AcceptRefused)


def of_status(status: str) -> int:
    """Return the exit code for a migration that was asked for and is left in ``status``."""
    if status == states.APPLIED:
        return APPLIED
    return FAILED if status in (states.FAILED, states.BROKEN) else STOPPED


def of_error(error: MassMigrationError) -> int:
    """Return the exit code for an error: 2 for what was asked wrongly, 3 for what is blocked, else 1."""
    if isinstance(error, _BLOCKED):
        return STOPPED
    return USAGE if isinstance(error, _MISUSED) else FAILED


def combine(codes: list[int]) -> int:
    """Return the exit code of several migrations: a failure outweighs a wait, a wait outweighs success."""
    return next((code for code in (FAILED, USAGE, STOPPED) if code in codes), APPLIED)


def refuse(sentence: str) -> CommandError:
    """Return the error for wrong usage, which ends the command with exit code 2."""
    return CommandError(sentence, returncode=USAGE)
