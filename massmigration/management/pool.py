"""The child processes of ``--workers N``: started, watched, replaced, stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from massmigration import worker
from massmigration.exceptions import BackendUnreachable

POLL_SECONDS: Final = 0.1
PATIENCE: Final = 5
"""How many processes more than there are workers may die in a row without any progress."""


@dataclass
class WorkerPool:
    """Keeps a number of worker processes at work on one attempt.

    Each is a fresh interpreter, so it shares no connection with us. It is in our process group, so that a terminal
    stops, continues and hangs up all of us; a Ctrl-C is ignored by the workers and left to us.

    Attributes:
        command: Program and arguments of a worker.
        count: How many.
        log_path: Their output is appended there.
        say: Tells the person one line.
        pids: Those of all that were started.
    """

    command: Sequence[str]
    count: int
    log_path: Path
    say: Callable[[str], None]
    pids: set[int] = field(default_factory=set, init=False)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)
    _deaths: int = field(default=0, init=False)
    _sign: object = field(default=None, init=False)

    def start(self) -> None:
        """Start all workers."""
        for _ in range(self.count):
            self._start_one()

    def tend(self, sign: object) -> None:
        """Replace workers that ended although there is work; to be called only while there is.

        Args:
            sign: Changes whenever the run makes progress or counts a worker as lost: then the engine ends a run whose
                workers are lost again and again.

        Raises:
            BackendUnreachable: They keep dying without any progress.
        """
        if sign != self._sign:
            self._deaths, self._sign = 0, sign
        for child in list(self._children):
            code = child.poll()
            if code is None:
                continue
            self._children.remove(child)
            self._deaths += 1
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            if self._deaths > PATIENCE + self.count:
                raise BackendUnreachable(
                    f"The worker processes keep ending before they have migrated a row; the last one {how}. See "
                    f"{self.log_path}, then continue with massmigrate."
                )
            self.say(f"Worker process {child.pid} {how}; another one is started.")
            self._start_one()

    def ask_to_stop(self) -> None:
        """Have the workers end after the batch in hand and hand their shards back."""
        for child in self._children:
            child.terminate()

    def kill(self) -> None:
        """End the workers at once; the batches in hand are rolled back."""
        for child in self._children:
            child.kill()

    def wait(self, should_hurry: Callable[[], bool] = lambda: False) -> None:
        """Wait until all workers have ended; once ``should_hurry`` says so, they are asked to stop."""
        was_asked = False
        while any(child.poll() is None for child in self._children):
            if should_hurry() and not was_asked:
                was_asked = True
                self.ask_to_stop()
            time.sleep(POLL_SECONDS)

    def _start_one(self) -> None:
        child = worker.start_child(self.command, self.log_path)
        self.pids.add(child.pid)
        self._children.append(child)
