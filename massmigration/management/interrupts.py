"""Signals: how a person or the system asks a command to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """Remembers SIGINT, SIGTERM and SIGHUP while it is entered; the work ends at the next good moment.

    The first Ctrl-C asks for a pause, the second one raises KeyboardInterrupt at once, until ``is_final``. A
    signal that the process was told to ignore, as ``nohup`` does with SIGHUP, stays ignored.

    Attributes:
        is_final: Whether every further Ctrl-C is ignored, so that the end is always written and told.

    Args:
        ignores_sigint: For worker processes: their parent decides what a Ctrl-C means.
    """

    def __init__(self, *, ignores_sigint: bool = False) -> None:
        self.is_interrupted = False
        self.is_terminated = False
        self.is_final = False
        self.on_interrupt: Callable[[], None] = lambda: None
        self._ignores_sigint = ignores_sigint
        self._before: dict[int, Any] = {}

    def should_stop(self) -> bool:
        """Return whether the process is to end after the batch in hand."""
        return self.is_interrupted or self.is_terminated

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers
        self._set(signal.SIGINT, signal.SIG_IGN if self._ignores_sigint else self._interrupt)
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                self._set(getattr(signal, name), self._terminate)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _set(self, number: int, handler: Any) -> None:
        before = signal.getsignal(number)
        if before is not signal.SIG_IGN and before is not None:
            self._before[number] = before
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.is_interrupted:
            if self.is_final:
                return
            raise KeyboardInterrupt
        self.is_interrupted = True
        self.on_interrupt()

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.is_terminated = True
