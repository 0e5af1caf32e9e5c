"""What a command shows while migrations run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from massmigration import states, wording
from massmigration.api import Progress
from massmigration.databases.redaction import flatten

LINE_SECONDS: Final = 10.0
"""Plain lines about the same migration are at least this far apart, unless something changed."""

MEMORY_SECONDS: Final = 15.0
SHORTEST_SECONDS: Final = 1.0
"""A rate is measured over at most the first and at least the second of these."""

ROOM_FOR_BAR: Final = 20
"""If fewer characters than this are left for the bar, the name gets its own line."""

FINISHING: Final = "Finishing the batch in hand. Press Ctrl-C again to stop at once."


def format_json(rows: list[dict[str, Any]]) -> str:
    """Return rows as a JSON list for people and programs: readable, and nothing in it controls a terminal."""
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    return "".join(char if char == "\n" or flatten(char) == char else _escape(char) for char in text)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


class Speedometer:
    """The rate of all workers together over the last seconds.

    A shard's own rate is that of its worker's last batches, and starts again with each shard: too restless to read.
    """

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def learn(self, count: int, now: float) -> None:
        """Learn how many objects are done at a monotonic time, in seconds."""
        if self._counts and count < self._counts[-1][1]:  # another run is shown now
            self._counts.clear()
        self._counts.append((now, count))
        while len(self._counts) > 2 and now - self._counts[1][0] >= MEMORY_SECONDS:
            self._counts.popleft()

    def get_rate(self) -> float | None:
        """Return objects per second, or None if that cannot be said yet."""
        if len(self._counts) < 2:
            return None
        (began_at, first), (ended_at, last) = self._counts[0], self._counts[-1]
        if ended_at - began_at < SHORTEST_SECONDS or last == first:
            return None
        return (last - first) / (ended_at - began_at)


class Display:
    """Plain lines: one at the start, one about every ten seconds, and what is said.

    If nothing reads the output any more, as after ``head`` has ended, the migration continues.

    Args:
        write: Writes one line.
        is_quiet: Whether only what is said is shown.
    """

    def __init__(self, write: Callable[[str], Any], *, is_quiet: bool = False) -> None:
        self._write: Callable[[str], Any] | None = write
        self._is_quiet = is_quiet
        self._shown_at = 0.0
        self._shown: tuple[Any, ...] = ()
        self._speed = Speedometer()

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if self._write is None:
            return
        try:
            try:
                self._write(line)
            except UnicodeEncodeError as error:
                self._write(line.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError):  # gone, or closed
            self._write = None
            _drop_output()

    def show(self, progress: Progress, note: str = "") -> None:
        """Show where a migration stands, or what the command itself waits for."""
        if self._is_quiet:
            return
        now = time.monotonic()
        self._speed.learn(progress.processed or 0, now)
        what = (progress.key, progress.database, progress.status, progress.stalled, bool(note))
        if what == self._shown and now - self._shown_at < LINE_SECONDS:
            return
        self._shown, self._shown_at = what, now
        line = note or wording.Run.of(progress, self._speed.get_rate()).line
        self.say(f"{wording.name_target(progress.key, progress.database)}  {line}")

    def end(self) -> None:
        """Remove what is redrawn in place, because the migration has ended."""
        self._shown, self._speed = (), Speedometer()

    def announce_stop(self) -> None:
        """Say that the first Ctrl-C was understood; called from a signal handler."""
        with suppress(OSError):
            os.write(2, f"\n{FINISHING}\n".encode())


class BarDisplay(Display):
    """A bar with rows, rate and time left, redrawn in place.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(self._print)
        self._console = console
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._note = ""
        self._is_stopping = False
        self._began_at = 0.0
        self._spinner = Spinner("dots")

    def show(self, progress: Progress, note: str = "") -> None:
        """Show where a migration stands."""
        self._speed.learn(progress.processed or 0, time.monotonic())
        self._progress, self._note = progress, note
        if self._live is None:
            self._began_at = time.monotonic()
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=5, transient=True)
            self._live.start()

    def end(self) -> None:
        """Remove the bar."""
        super().end()
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()

    def announce_stop(self) -> None:
        """Show in the bar's second line that the first Ctrl-C was understood."""
        self._is_stopping = True

    def _print(self, line: str) -> None:
        # What is in a key or an error must not be read as markup or as an emoji code.
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def _render(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return Text("")
        run = wording.Run.of(progress, self._speed.get_rate())
        detail = Text(self._get_detail(run), style="yellow" if self._is_stopping else "dim")
        name = Text(wording.name_target(progress.key, progress.database), style="bold")
        elapsed = wording.format_seconds(float(int(time.monotonic() - self._began_at)))
        if not run.unit or progress.status == states.ENQUEUED:
            head = Table.grid(padding=(0, 1))
            head.add_row(name, self._spinner, Text(elapsed))
        else:
            head = Table.grid(padding=(0, 1), expand=True)
            head.add_column(no_wrap=True, overflow="ellipsis")
            head.add_column(ratio=1)
            rows = run.progress
            widest = len(rows) + len(f"{progress.total or 0:,}") - len(f"{progress.processed or 0:,}") + 1
            head.add_column(no_wrap=True, justify="right", min_width=widest)
            total = progress.total if progress.total else None
            bar = ProgressBar(total=total, completed=progress.processed or 0, pulse=total is None)
            is_narrow = self._console.width < len(name) + widest + ROOM_FOR_BAR
            head.add_row(Text("") if is_narrow else name, bar, Text(rows))
            if is_narrow:
                return Group(name, head, detail)
        return Group(head, detail)

    def _get_detail(self, run: wording.Run) -> str:
        if self._is_stopping:
            return FINISHING
        return ", ".join(part for part in [self._note or run.trouble, *run.results, *run.pace] if part)


def get_display(stdout: Any, *, verbosity: int, is_worker: bool) -> Display:
    """Return a bar if the output is a terminal that can redraw, and no worker's log, else plain lines."""
    if verbosity and not is_worker and stdout.isatty() and sys.stdout.isatty():
        console = Console(file=sys.stdout)
        if not console.is_dumb_terminal:
            return BarDisplay(console)

    def write(line: str) -> None:
        stdout.write(line)
        stdout.flush()

    return Display(write, is_quiet=verbosity == 0)


def _drop_output() -> None:
    """Discard the interpreter's last flush (https://docs.python.org/3/library/signal.html#note-on-sigpipe)."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
