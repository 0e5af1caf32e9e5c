"""What a test lays out for the processes that it starts: a brake, and traps in which a process dies once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

DIRECTORY = "MASSMIGRATION_TEST_TRAPS"
BRAKE = "brake"

_met: Counter[str] = Counter()


def dawdle(seconds: float = 0.01) -> None:
    """Take some time, as long as the brake is on."""
    place = _find(BRAKE)
    if place is not None and place.exists():
        time.sleep(seconds)


def spring(name: str) -> None:
    """Kill this process if there is a trap of this name, at the n-th time; a trap is sprung once."""
    place = _find(name)
    if place is None or not place.exists():
        return
    _met[name] += 1
    if _met[name] >= int(place.read_text()):
        place.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def lay(directory: Path, name: str, at: int = 1) -> Path:
    """Lay a trap, or put the brake on; return the file that stands for it."""
    place = directory / name
    place.write_text(str(at))
    return place


def _find(name: str) -> Path | None:
    directory = os.environ.get(DIRECTORY)
    return Path(directory, name) if directory else None
