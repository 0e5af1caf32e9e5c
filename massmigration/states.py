"""The statuses of a record, and every action on it as one table that commands, pages, log and signals read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from django.dispatch import Signal

from massmigration import signals

NOT_RUN: Final = "not_run"
ENQUEUED: Final = "enqueued"
RUNNING: Final = "running"
PAUSED: Final = "paused"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
APPLIED: Final = "applied"
ROLLED_BACK: Final = "rolled_back"
BROKEN: Final = "broken"
ORPHANED: Final = "orphaned"

STORED: Final = (ENQUEUED, RUNNING, PAUSED, FAILED, CANCELLED, APPLIED, ROLLED_BACK)
LABELS: Final = {status: status.replace("_", " ") for status in (NOT_RUN, *STORED, BROKEN, ORPHANED)}

ACTIVE: Final = (ENQUEUED, RUNNING)
"""A worker may work on a record in these statuses, and in no others."""

OPERATION_ERROR: Final = "operation_error"
FAILURES_OPEN: Final = "failures_open"
VERIFY_FAILED: Final = "verify_failed"
NOT_EMPTY: Final = "not_empty"
MAX_FAILURES: Final = "max_failures"
BACKEND_UNREACHABLE: Final = "backend_unreachable"

REASONS: Final = {
    OPERATION_ERROR: "the operation raised an error",
    FAILURES_OPEN: "some objects could not be migrated",
    VERIFY_FAILED: "verify() did not pass",
    NOT_EMPTY: "the queryset still finds rows",
    MAX_FAILURES: "too many objects failed",
    BACKEND_UNREACHABLE: "the queue could not be reached",
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that a person or the engine does to a record.

    Attributes:
        name: How events, signals and the API name it.
        sources: The statuses from which it is legal; ``not_run`` stands for "no record".
        target: The status afterwards; ``not_run`` stands for "the record is gone", None for "as before".
        why: What happens, and why it is legal from just these statuses; pages and ``--help`` show it.
        done: What log lines and pages say afterwards; follows the key.
        outcome: What pages and commands add to that.
        inability: What a refusal says if it is not made of ``done``; follows "so it cannot".
        way_out: What a refusal says to do, if that does not depend on the status.
        instead: The same for some statuses.
        level: Of the log line.
        signal: Sent after the commit.
        button: What a person presses, empty for the engine's; an ellipsis says that a page asks before it is done.
        confirmation: The button on that page, if it is not made of ``button``.
        command: What a person types after ``massmigration``, if it is not the name.
        needs_file: Whether the migration's file has to work.
    """

    name: str
    sources: tuple[str, ...]
    target: str | None
    why: str
    done: str
    outcome: str = ""
    inability: str = ""
    way_out: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    level: int = logging.INFO
    signal: Signal | None = None
    button: str = ""
    confirmation: str = ""
    command: str = ""
    needs_file: bool = True

    @property
    def cannot(self) -> str:
        """What a refusal says; follows "so it cannot"."""
        is_passive = self.done.startswith("was ")
        return self.inability or (f"be {self.done.removeprefix('was ')}" if is_passive else self.name)

    @property
    def verb(self) -> str:
        """What a person types after ``massmigration``, and the last part of the page's URL."""
        return self.command or self.name

    @property
    def submit(self) -> str:
        """The button that does it on the page that asks."""
        return self.confirmation or f"{self.button.removesuffix('…')} migration"

    @property
    def asks_first(self) -> bool:
        """Whether the button leads to a page that asks instead of doing it at once."""
        return self.button.endswith("…")

    @property
    def makes_attempt(self) -> bool:
        """Whether it makes a new attempt, so that rows and dependencies are worth knowing before."""
        return self.target == ENQUEUED

    @property
    def stops(self) -> bool:
        """Whether it stops a run, which is meant whatever its status has become meanwhile."""
        return bool(self.button) and self.target is not None and set(ACTIVE) <= set(self.sources)


ACTIONS: Final = {
    action.name: action
    for action in (
        Action(
            name="start",
            sources=(NOT_RUN, CANCELLED, ROLLED_BACK),
            target=ENQUEUED,
            why="A new attempt begins with the first row; a paused or failed one is resumed or retried instead.",
            done="was started",
            instead={
                **dict.fromkeys(ACTIVE, "Pause or cancel it before starting it again."),
                PAUSED: "Resume it, or restart it from the beginning.",
                FAILED: "Retry it, or restart it from the beginning.",
            },
            signal=signals.migration_started,
            command="run",
            button="Run…",
        ),
        Action(
            name="recover",
            sources=ACTIVE,
            target=None,
            why="Key ranges whose worker is gone are handed to a new one, which continues where that one stopped.",
            done="was recovered",
            way_out="Only a migration that is enqueued or running can be recovered.",
            level=logging.WARNING,
            button="Recover",
        ),
        Action(
            name="pause",
            sources=ACTIVE,
            target=PAUSED,
            why="Workers stop after the batch in hand; the migration can be resumed where it stopped.",
            done="was paused",
            outcome="workers stop after the batch in hand",
            way_out="Only a migration that is enqueued or running can be paused.",
            signal=signals.migration_paused,
            button="Pause",
            needs_file=False,
        ),
        Action(
            name="resume",
            sources=(PAUSED,),
            target=RUNNING,
            why="The same attempt continues where it stopped.",
            done="was resumed",
            instead=dict.fromkeys(ACTIVE, "There is nothing to resume."),
            signal=signals.migration_resumed,
            button="Resume",
        ),
        Action(
            name="retry",
            sources=(FAILED,),
            target=RUNNING,
            why="What failed is tried again, then the same attempt continues where it stopped.",
            done="was retried",
            instead=dict.fromkeys(ACTIVE, "There is nothing to retry."),
            signal=signals.migration_resumed,
            button="Retry",
        ),
        Action(
            name="accept",
            sources=(RUNNING, PAUSED, FAILED),
            target=None,
            why="Failed objects are skipped, for a reason that is kept; once none is open, a failed run continues.",
            done="has failures that were accepted",
            inability="have failures accepted",
            way_out="Only objects that failed in a run that is running, paused or failed can be accepted.",
            button="Accept failures…",
            confirmation="Accept these failures",
        ),
        Action(
            name="cancel",
            sources=(*ACTIVE, PAUSED, FAILED),
            target=CANCELLED,
            why="The attempt is given up; migrated rows are kept. The next run is a new attempt.",
            done="was cancelled",
            outcome="migrated rows are kept",
            instead={NOT_RUN: "There is nothing to cancel."},
            signal=signals.migration_cancelled,
            button="Cancel…",
            needs_file=False,
        ),
        Action(
            name="restart",
            sources=(PAUSED, FAILED, CANCELLED, APPLIED, ROLLED_BACK),
            target=ENQUEUED,
            why="A new attempt visits every row again, from the beginning, also those that were migrated before.",
            done="was restarted from the beginning",
            signal=signals.migration_started,
            button="Restart…",
            confirmation="Restart from the beginning",
        ),
        Action(
            name="fake",
            sources=(NOT_RUN, PAUSED, FAILED, CANCELLED, ROLLED_BACK),
            target=APPLIED,
            why="The migration counts as applied without running. Do this only if the data is as it would leave it.",
            done="was marked as applied",
            outcome="no row was changed",
            signal=signals.migration_applied,
            button="Mark as applied…",
            confirmation="Mark as applied",
        ),
        Action(
            name="reset",
            sources=(PAUSED, FAILED, CANCELLED, APPLIED, ROLLED_BACK),
            target=NOT_RUN,
            why="The record is forgotten, so that it counts as not run; rows and events stay as they are.",
            done="was reset",
            outcome="its record is forgotten",
            instead={NOT_RUN: "There is nothing to reset."},
            button="Reset to not run…",
            confirmation="Reset to not run",
            needs_file=False,
        ),
        Action(
            name="begin", sources=(ENQUEUED,), target=RUNNING, why="A worker has planned the shards.", done="is running"
        ),
        Action(
            name="fail",
            sources=ACTIVE,
            target=FAILED,
            why="An object could not be migrated, or a check did not pass.",
            done="failed",
            level=logging.ERROR,
            signal=signals.migration_failed,
        ),
        Action(
            name="proceed",
            sources=(FAILED,),
            target=RUNNING,
            why="The last open failure was accepted; the run continues to its end.",
            done="continues to its end",
            signal=signals.migration_resumed,
        ),
        Action(
            name="finish",
            sources=(RUNNING,),
            target=APPLIED,
            why="Every shard is done, no failure is open, verify() passes.",
            done="is applied",
            signal=signals.migration_applied,
        ),
        Action(
            name="change_file",
            sources=(),
            target=None,
            why="A worker found another version of the file and works with that.",
            done="continues with another version of its file",
            level=logging.WARNING,
        ),
    )
}
"""By name, those of a person in the order of their buttons."""

MOVES: Final = {name: action for name, action in ACTIONS.items() if action.sources}
"""The legal moves; ``change_file`` moves nothing."""

PERSONS_ACTIONS: Final = tuple(name for name, action in ACTIONS.items() if action.button)


def is_legal(action: str, status: str) -> bool:
    """Return whether ``action`` is legal for a record in ``status``."""
    return status in MOVES[action].sources


def get_legal_actions(status: str) -> list[str]:
    """Return the actions that a person may take in ``status``, in the table's order."""
    return [action for action in PERSONS_ACTIONS if is_legal(action, status)]


def get_action_towards_end(status: str) -> str | None:
    """Return what makes a migration that is not at work run to its end: start, resume or retry; None if nothing."""
    return next((action for action in ("start", "resume", "retry") if is_legal(action, status)), None)
