"""What operations do besides counting: they leave a trace of each call, take their time, and halt when a test says so.

A test and the operations, which run in other processes, share a directory that the environment names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def get_queue(kind: str) -> str:
    """Return the queue of a migration: one for each kind, since the emulator delivers a queue's tasks one by one."""
    return f"{os.environ['SITE_QUEUE']}-{kind}"


def step(kind: str, row: object) -> None:
    """Call this before a row is changed.

    Args:
        kind: Of migration, such as ``"mapper"``.
        row: Key of the row.
    """
    directory = Path(os.environ["SITE_DIRECTORY"])
    _note(directory / "calls", f"{os.getpid()} {kind} {row}")
    time.sleep(float(os.environ.get("SITE_STEP_SECONDS", "0")))
    halt(kind)


def halt(place: str) -> None:
    """Wait as long as the file ``halt-<place>`` is there, and say in ``halted`` who waits."""
    directory = Path(os.environ["SITE_DIRECTORY"])
    if (directory / f"halt-{place}").exists():
        _note(directory / "halted", f"{os.getpid()} {place}")
    while (directory / f"halt-{place}").exists():
        time.sleep(0.01)


def _note(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:  # one write to the end, so that lines of many processes stay whole
        file.write(f"{line}\n")
