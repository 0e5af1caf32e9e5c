"""The faults that the suite makes, how often it made them, and the table in ``docs/faults.md`` that tells of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.faults.steps import STEPS, Step, dies_in_transaction
from tests.markdown import DOCS

SQL: Final = ("SQLite", "PostgreSQL")
CLOUD: Final = ("Datastore", "Firestore")
NAMES: Final = {"default": "SQLite", "postgres": "PostgreSQL", "datastore": "Datastore", "firestore": "Firestore"}

PAGE: Final = DOCS / "faults.md"
WRITE: Final = "MASSMIGRATION_TEST_WRITE_DOCS"
"""Environment variable: a session without failures writes its counts into the page."""

EXACT: Final = "Every row once, APPLIED, the numbers add up."
PROMISED: Final = (
    "APPLIED, the numbers add up. Every row once where the engine writes; else at most the batch in hand again."
)


class Fault(NamedTuple):
    """One kind of fault.

    Attributes:
        name: What is done.
        databases: Where it is tried.
        result: What held each time.
    """

    name: str
    databases: tuple[str, ...]
    result: str = EXACT


def _list_kills() -> list[Fault]:
    faults = []
    for number, step in enumerate(STEPS, start=1):
        name = f"kill in step {number}: {step.name}"
        faults += [Fault(name, SQL), Fault(name, CLOUD if is_tried_on_firestore(step) else CLOUD[:1], PROMISED)]
    return faults


def is_tried_on_firestore(step: Step) -> bool:
    """Return whether it is tried on Firestore, which keeps the locks of a dead client for a minute."""
    return not dies_in_transaction(step)


FAULTS: Final = (
    *_list_kills(),
    Fault("kill of a worker at a random moment", SQL),
    Fault("worker stopped for longer than its lease, and back late", ("PostgreSQL",)),
    Fault("task delivered twice", SQL),
    Fault("task delivered late and out of order", SQL),
    Fault("task lost", SQL),
    Fault("worker gone between two steps, lease left behind", SQL),
    Fault("pause and resume in mid-run", SQL),
    Fault("row inserted by another connection", SQL, "Visited at most once; none of the others is missed."),
    Fault("row deleted by another connection", SQL, "Visited at most once; none of the others is missed."),
    Fault("row changed by another connection", SQL, "The change stays; the row is visited once."),
    Fault("deadlock provoked by another connection", ("PostgreSQL",)),
    Fault("connections cut by the server", ("PostgreSQL",)),
    Fault("server restarted at once, without a good-bye", ("PostgreSQL",)),
    Fault("database read-only for a while", SQL),
    Fault("disk full for a while", ("SQLite",)),
    Fault(
        "actions of people, tasks and deaths in any order (state machine)", ("SQLite",), "Each rule after each step."
    ),
    Fault("start against start", ("PostgreSQL",), "One wins; the other is told that it is enqueued already."),
    Fault(
        "pause against finish",
        ("PostgreSQL",),
        "PAUSED, and APPLIED after a resume; or APPLIED, and the pause refused.",
    ),
    Fault(
        "cancel against resume",
        ("PostgreSQL",),
        "CANCELLED: the resume is refused, or came first and is cancelled.",
    ),
    Fault(
        "reset against a running slice",
        ("PostgreSQL",),
        "The record is gone, the batch in hand rolled back or whole; a new start visits every row again.",
    ),
    Fault(
        "retry against a late task of the attempt before",
        ("PostgreSQL",),
        "The late task changes nothing; the retry ends APPLIED.",
    ),
)

counts: Counter[tuple[str, str]] = Counter()
"""What the test that runs has counted; ``tally`` adds it up."""


def count(fault: str, db_alias: str, times: int = 1) -> None:
    """Note that a fault was made and that all held.

    Args:
        fault: The name of one in ``FAULTS``.
        db_alias: The database.
        times: How often.
    """
    database = NAMES[db_alias]
    assert any(known.name == fault and database in known.databases for known in FAULTS), f"{fault} on {database}"
    counts[fault, database] += times


def name_kill(step_name: str) -> str:
    """Return the name of the fault that is a kill in this step."""
    number = [step.name for step in STEPS].index(step_name) + 1
    return f"kill in step {number}: {step_name}"


def list_rows() -> list[tuple[str, str]]:
    """Return fault and database of each row that the page has to have."""
    return [(fault.name, database) for fault in FAULTS for database in fault.databases]


def read_page() -> dict[tuple[str, str], int]:
    """Return how often each fault was made, as the page tells."""
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \| (\w+) \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {(name, database): int(number.replace(",", "")) for name, number, database in rows}


def render(numbers: Mapping[tuple[str, str], int]) -> str:
    """Return the table."""
    lines = ["| fault | how often | database | result |", "|---|---:|---|---|"]
    for fault in FAULTS:
        for database in fault.databases:
            lines.append(f"| {fault.name} | {numbers.get((fault.name, database), 0):,} | {database} | {fault.result} |")
    return "\n".join(lines)


def write_page(counted: Mapping[tuple[str, str], int]) -> None:
    """Put a session's counts into the page, and leave those of databases alone that it had not."""
    text = PAGE.read_text(encoding="utf-8")
    before, mark, rest = text.partition("| fault | how often |")
    assert mark, f"{PAGE.name} has no table to fill"
    _, gap, after = rest.partition("\n\n")
    PAGE.write_text(before + render({**read_page(), **counted}) + gap + after, encoding="utf-8")
