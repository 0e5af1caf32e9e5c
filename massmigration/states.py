"""The statuses of a record and every legal move between them, as one table."""

from __future__ import annotations

from typing import Final, NamedTuple

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
LABELS: Final = {
    NOT_RUN: "not run",
    ENQUEUED: "enqueued",
    RUNNING: "running",
    PAUSED: "paused",
    FAILED: "failed",
    CANCELLED: "cancelled",
    APPLIED: "applied",
    ROLLED_BACK: "rolled back",
    BROKEN: "broken",
    ORPHANED: "orphaned",
}

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


class Move(NamedTuple):
    """One legal action on a record.

    Attributes:
        action: What a person or the engine does.
        sources: The statuses from which it is legal; ``not_run`` stands for "no record".
        target: The status afterwards; ``not_run`` stands for "the record is gone", None for "as before".
        by_person: Whether a person may do it; the others are the engine's own.
        why: Why the move exists and is legal from just these statuses.
    """

    action: str
    sources: tuple[str, ...]
    target: str | None
    by_person: bool
    why: str


MOVES: Final = {
    move.action: move
    for move in (
        Move(
            "start",
            (NOT_RUN, CANCELLED, ROLLED_BACK),
            ENQUEUED,
            True,
            "A new attempt is made; one that is paused or failed is resumed or retried instead.",
        ),
        Move("begin", (ENQUEUED,), RUNNING, False, "A worker has planned the shards."),
        Move("pause", ACTIVE, PAUSED, True, "Workers stop after the batch in hand; the cursors stay."),
        Move("resume", (PAUSED,), RUNNING, True, "Work continues from the cursors of the same attempt."),
        Move("retry", (FAILED,), RUNNING, True, "What failed is tried again, then work continues from the cursors."),
        Move(
            "accept",
            (RUNNING, PAUSED, FAILED),
            None,
            True,
            "A person takes objects that failed as they are, for a reason that is kept.",
        ),
        Move("recover", ACTIVE, None, True, "Abandoned shards are handed to a new worker."),
        Move("fail", ACTIVE, FAILED, False, "An object could not be migrated, or a check did not pass."),
        Move("proceed", (FAILED,), RUNNING, False, "The last open failure was accepted; the run continues to its end."),
        Move("finish", (RUNNING,), APPLIED, False, "Every shard is done, no failure is open, verify() passes."),
        Move(
            "cancel",
            (*ACTIVE, PAUSED, FAILED),
            CANCELLED,
            True,
            "The attempt is given up; migrated rows are kept.",
        ),
        Move(
            "restart",
            (PAUSED, FAILED, CANCELLED, APPLIED, ROLLED_BACK),
            ENQUEUED,
            True,
            "A new attempt visits every row again, from the beginning.",
        ),
        Move(
            "fake",
            (NOT_RUN, PAUSED, FAILED, CANCELLED, ROLLED_BACK),
            APPLIED,
            True,
            "A person vouches that the data is as the migration would leave it.",
        ),
        Move(
            "reset",
            (PAUSED, FAILED, CANCELLED, APPLIED, ROLLED_BACK),
            NOT_RUN,
            True,
            "The record is forgotten, so that the migration counts as not run.",
        ),
    )
}

PERSONS_ACTIONS: Final = tuple(move.action for move in MOVES.values() if move.by_person)

_WAYS_OUT: Final = {
    NOT_RUN: "Start it first.",
    ENQUEUED: "Pause or cancel it first.",
    RUNNING: "Pause or cancel it first.",
    PAUSED: "Resume it, or cancel it.",
    FAILED: "Retry it, or cancel it.",
    CANCELLED: "Start it again, or reset it.",
    APPLIED: "Reset it, or restart it, if it has to run again.",
    ROLLED_BACK: "Start it again, or reset it.",
}


def is_legal(action: str, status: str) -> bool:
    """Return whether ``action`` is legal for a record in ``status``."""
    return status in MOVES[action].sources


def get_legal_actions(status: str) -> list[str]:
    """Return the actions that a person may take in ``status``, in the table's order."""
    return [action for action in PERSONS_ACTIONS if is_legal(action, status)]


def get_refusal(action: str, key: str, db_alias: str, status: str) -> str:
    """Return the sentence that refuses ``action`` in ``status`` and says what to do instead."""
    label = LABELS[status]
    if action == status or (action == "start" and status in ACTIVE):
        label = f"already {label}"
    way_out = _WAYS_OUT[status]
    if status == NOT_RUN and action == "reset":
        way_out = "There is nothing to reset."
    elif status == NOT_RUN and action == "cancel":
        way_out = "There is nothing to cancel."
    elif action == "accept":
        way_out = "Only objects that failed in a run that is running, paused or failed can be accepted."
    elif action == "pause" and status not in ACTIVE:
        way_out = "Only a migration that is enqueued or running can be paused."
    elif action == "recover":
        way_out = "Only a migration that is enqueued or running can be recovered."
    elif action == "start" and status == PAUSED:
        way_out = "Resume it, or restart it from the beginning."
    elif action == "start" and status == FAILED:
        way_out = "Retry it, or restart it from the beginning."
    return f"{key} is {label} on database '{db_alias}', so it cannot {_VERBS.get(action, 'be ' + action)}. {way_out}"


def get_stale_refusal(key: str, db_alias: str, status: str, *, is_same_attempt: bool) -> str:
    """Return the sentence that refuses what a person decided when things stood differently.

    Args:
        key: The migration's key.
        db_alias: The database.
        status: The status now.
        is_same_attempt: Whether it is still the attempt that they have seen.
    """
    change = f"is {LABELS[status]} now" if is_same_attempt or status == NOT_RUN else "has been started again"
    return (
        f"{key} {change} on database '{db_alias}', which the page did not show yet. Nothing was changed. Look at it "
        "again, then decide."
    )


_VERBS: Final = {
    "start": "be started",
    "pause": "be paused",
    "resume": "be resumed",
    "retry": "be retried",
    "accept": "have failures accepted",
    "recover": "be recovered",
    "cancel": "be cancelled",
    "restart": "be restarted",
    "fake": "be marked as applied",
    "reset": "be reset",
    "begin": "begin",
    "fail": "fail",
    "proceed": "proceed",
    "finish": "finish",
}
