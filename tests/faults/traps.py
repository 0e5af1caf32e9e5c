"""What a test lays out: a brake for the processes that it starts, a death for itself, and objects that fail."""

from __future__ import annotations

import datetime
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from django.db import connections

DIRECTORY = "MASSMIGRATION_TEST_TRAPS"
BRAKE = "brake"


def dawdle(seconds: float = 0.01) -> None:
    """Take some time, as long as the brake is on."""
    place = _find(BRAKE)
    if place is not None and place.exists():
        time.sleep(seconds)


def lay(directory: Path, name: str, at: int = 1) -> Path:
    """Put the brake on; return the file that stands for it."""
    place = directory / name
    place.write_text(str(at))
    return place


def _find(name: str) -> Path | None:
    directory = os.environ.get(DIRECTORY)
    return Path(directory, name) if directory else None


ENDINGS = ("__exit__",)
"""What cleans up on the way out has to do so, or this process could not go on: no death can be played there."""


class Vanished(BaseException):
    """Stands for the death of a worker: no code of ours may catch it."""


PLACES = ("", "advance", "claim", "run_write", "_update_held", "move", "release", "_enqueue")
"""Names of functions around the commits of the engine, where a death does most; an empty one stands for all."""


def vanish_after(calls: int, work: Callable[[], object], name: str = "") -> bool:
    """Do some work, and be gone in the middle of it, at a call of one of massmigration's functions.

    What is thrown out of the call undoes an open transaction, as a death does; what a living worker would write
    down on its way out, it does not: no statement leaves the process any more.

    Args:
        calls: At which call.
        work: What to do.
        name: Count calls of functions of this name only.

    Returns:
        Whether the worker was gone before the end.
    """
    left, dead = calls, connections.all()

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event != "call" or frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_name in ENDINGS:
            return
        if name not in ("", frame.f_code.co_name):
            return
        if not frame.f_globals.get("__name__", "").startswith("massmigration."):
            return
        left -= 1
        if left <= 0:
            for connection in dead:
                connection.execute_wrappers.append(_refuse)
            raise Vanished

    sys.setprofile(note)
    try:
        work()
    except Vanished:
        return True
    finally:
        sys.setprofile(None)
        for connection in dead:
            connection.execute_wrappers[:] = [one for one in connection.execute_wrappers if one is not _refuse]
    return False


def _refuse(*arguments: Any) -> Any:
    raise Vanished


PAST = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)

_bad: set[str] = set()


def spoil(name: str) -> None:
    """Have the operation fail at the object of this name, in this process, until it is mended."""
    _bad.add(name)


def mend() -> None:
    """Have all objects work again."""
    _bad.clear()


def stumble(name: str) -> None:
    """Raise an error if the object is spoiled."""
    if name in _bad:
        raise ValueError(f"{name} cannot be worked")


def die(name: str, *ways: str) -> None:
    """Kill this process if the name begins with one of these, as an operation does that takes too much memory."""
    if name.startswith(ways):
        os.kill(os.getpid(), signal.SIGKILL)
