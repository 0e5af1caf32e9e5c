"""How commands and pages say where a migration stands: counts, durations, statuses, refusals and the next command."""

from __future__ import annotations

import datetime
import math
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.db import DEFAULT_DB_ALIAS
from django.utils import timezone

from massmigration import states
from massmigration.databases.redaction import flatten

WITHOUT_RUNNING: Final = "without running it"
FILE_GONE: Final = "Its file is gone. Bring it back, or reset the record."
FILE_CHANGED: Final = "The file has changed since this attempt began."

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SUMMARY_ORDER: Final = (*states.STORED, states.BROKEN, states.ORPHANED, states.NOT_RUN)
_WAYS_OUT: Final = {
    states.NOT_RUN: "Start it first.",
    states.ENQUEUED: "Pause or cancel it first.",
    states.RUNNING: "Pause or cancel it first.",
    states.PAUSED: "Resume it, or cancel it.",
    states.FAILED: "Retry it, or cancel it.",
    states.CANCELLED: "Start it again, or reset it.",
    states.APPLIED: "Reset it, or restart it, if it has to run again.",
    states.ROLLED_BACK: "Start it again, or reset it.",
}


class Run(NamedTuple):
    """What is known of a migration on one database, to be put into words; None is unknown, as in ``api.Progress``.

    Attributes:
        status: The status, derived ones too.
        unit: What is counted: ``"rows"``, ``"items"``, or nothing if it is one single step.
    """

    status: str
    unit: str = "rows"
    faked: bool = False
    processed: int | None = None
    changed: int | None = None
    failed: int | None = None
    total: int | None = None
    total_is_estimate: bool | None = None
    percent: float | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    shards: int | None = None
    shards_done: int | None = None
    workers_alive: int | None = None
    stalled: bool = False
    stalled_since: datetime.datetime | None = None
    waiting_for: str | None = None

    @classmethod
    def of(cls, progress: Any, rate: float | None = None) -> Run:
        """Take the values from ``api.Progress``, and a rate that was measured instead of what the workers say."""
        known = {name: getattr(progress, name) for name in cls._fields}
        if rate:
            known |= {"rate": rate, "eta_seconds": None}
            if progress.total is not None and progress.processed is not None:
                known["eta_seconds"] = max(0, progress.total - progress.processed) / rate
        return cls(**known)

    @property
    def is_active(self) -> bool:
        """Whether a worker may be working on it."""
        return self.status in states.ACTIVE

    @property
    def label(self) -> str:
        """The status, such as ``applied without running it``."""
        return describe_status(self.status, faked=self.faked)

    @property
    def rows(self) -> str:
        """The count, such as ``58,000 of about 234,908 rows``, as far as it is known."""
        if not self.unit or self.processed is None:
            return ""
        if self.status == states.APPLIED or self.total is None:
            return count(self.processed, self.unit) if self.processed or self.status == states.APPLIED else ""
        return f"{self.processed:,} of {count(self.total, self.unit, is_estimate=bool(self.total_is_estimate))}"

    @property
    def percentage(self) -> str:
        """How much is done, such as ``24 %``; never 100 before the end."""
        return "" if self.percent is None else f"{math.floor(self.percent)} %"

    @property
    def progress(self) -> str:
        """The count and how much that is, such as ``58,000 of 234,908 rows (24 %)``."""
        if self.rows and self.percentage and self.status != states.APPLIED:
            return f"{self.rows} ({self.percentage})"
        return self.rows

    @property
    def results(self) -> list[str]:
        """What has come of it: ``230 changed``, ``2 failed``."""
        parts = []
        if self.unit and self.changed is not None and not self.is_active:
            parts.append(f"{self.changed:,} changed")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return parts

    @property
    def pace(self) -> list[str]:
        """While it runs: ``41,200 rows/s``, ``4 s left``, ``1 of 8 key ranges``, ``3 workers``, as far as known."""
        parts: list[str] = []
        if not self.is_active:
            return parts
        if self.rate and self.unit:
            parts.append(describe_rate(self.rate, self.unit))
            if self.eta_seconds is not None:
                parts.append(f"{format_seconds(math.ceil(self.eta_seconds))} left")
        if self.unit and self.shards is not None:
            parts.append(f"{self.shards_done or 0} of {count(self.shards, self.ranges)}")
        if self.workers_alive:
            parts.append(count(self.workers_alive, "workers"))
        return parts

    @property
    def ranges(self) -> str:
        """What its shards are called: ``key ranges``, as teams shard databases, too."""
        return "key ranges" if self.unit == "rows" else "shards"

    @property
    def trouble(self) -> str:
        """Why nothing moves, or an empty string if all is well."""
        if self.stalled:
            since = f" since {format_moment(self.stalled_since)}" if self.stalled_since else ""
            return f"stalled{since}: no worker is working on it"
        if not self.waiting_for or not self.is_active:
            return ""
        return f"waiting: {flatten(' '.join(self.waiting_for.split()))}"

    @property
    def remark(self) -> str:
        """What is to be said beside the status: why nothing moves, or that it is starting."""
        return self.trouble or ("starting" if self.status == states.ENQUEUED else "")

    @property
    def numbers(self) -> list[str]:
        """Everything that is counted, each as a short text; how much is done is left out, as a bar shows it."""
        return [text for text in [self.rows, *self.results, *self.pace] if text]

    @property
    def line(self) -> str:
        """One line about a migration while it is worked on, without its name."""
        parts = [self.remark, self.progress, *self.results]
        if not self.stalled:
            parts += self.pace
        return ", ".join(part for part in parts if part) or self.label


def count(number: int, unit: str, *, is_estimate: bool = False) -> str:
    """Return a number with its unit, such as ``1 row``, ``234,908 rows`` or ``about 5,000 rows``."""
    noun = unit.removesuffix("s") if number == 1 else unit
    return f"{'about ' if is_estimate else ''}{number:,} {noun}"


def was(number: int) -> str:
    """Return ``was`` for one, and ``were`` for any other number."""
    return "was" if number == 1 else "were"


def describe_rate(rate: float, unit: str) -> str:
    """Return objects per second, such as ``41,200 rows/s``; slow ones with a decimal."""
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"


def format_seconds(seconds: float) -> str:
    """Return a duration with its two largest units, such as ``2 h 5 min``; short ones with a decimal."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        if rest >= size or parts:
            parts.append((rest // size, unit))
            rest %= size
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


def format_moment(moment: datetime.datetime, *, is_dated: bool = False) -> str:
    """Return date and time in the site's time zone; the time alone if it is today, unless ``is_dated``."""
    now = timezone.now()
    if timezone.is_aware(moment):
        moment, now = timezone.localtime(moment), timezone.localtime(now)
    has_date = is_dated or moment.date() != now.date()
    return f"{moment:%Y-%m-%d %H:%M:%S}" if has_date else f"{moment:%H:%M:%S}"


def describe_status(status: str, *, faked: bool = False) -> str:
    """Return a status as a word, and whether it is so without having run."""
    return f"{states.LABELS[status]} {WITHOUT_RUNNING}" if faked else states.LABELS[status]


def describe_reason(reason: str | None) -> str:
    """Return why a record has its status; empty if it has no reason."""
    return states.REASONS.get(reason or "", reason or "")


def summarize(statuses: Iterable[str], stalled_count: int = 0) -> str:
    """Return how many migrations there are in each status, such as ``2 running, 1 failed, 4 applied``."""
    counts = Counter(statuses)
    parts = [f"{counts[status]:,} {states.LABELS[status]}" for status in _SUMMARY_ORDER if counts[status]]
    return ", ".join([*parts, f"{stalled_count:,} of them stalled"] if stalled_count else parts)


def describe_error(error_class: str, message: str, limit: int | None = None) -> str:
    """Return class and message of an error, cut to a number of characters."""
    text = f"{error_class.removeprefix('builtins.')}: {message}"
    return text if limit is None or len(text) <= limit else f"{text[:limit]} … (cut)"


def describe_done(action: str, key: str, db_alias: str) -> str:
    """Return the sentence that a person's action was done."""
    entry = states.ACTIONS[action]
    outcome = f"; {entry.outcome}" if entry.outcome else ""
    return f"Migration {key} {entry.done} on database '{db_alias}'{outcome}."


def describe_accepted(accepted_count: int, open_count: int, *, goes_on: bool) -> str:
    """Return what came of accepting failures, such as ``3 failures were accepted; 1 stays open``."""
    if not accepted_count and not goes_on:
        return "no failure was left to accept"
    rest = "; the run continues to its end" if goes_on else ""
    if open_count:
        rest = f"; {open_count:,} {'stays' if open_count == 1 else 'stay'} open"
    return f"{count(accepted_count, 'failures')} {was(accepted_count)} accepted{rest}"


def get_refusal(action: str, key: str, db_alias: str, status: str) -> str:
    """Return the sentence that refuses ``action`` in ``status`` and says what to do instead."""
    entry, where = states.ACTIONS[action], f"{states.LABELS[status]} on database '{db_alias}'"
    is_there = status == entry.target or (entry.makes_attempt and status in states.ACTIVE)
    if is_there and status != states.NOT_RUN:
        return f"{key} is already {where}. {entry.instead.get(status, _WAYS_OUT[status])}"
    way_out = entry.instead.get(status) or entry.way_out or _WAYS_OUT[status]
    return f"{key} is {where}, so it cannot {entry.cannot}. {way_out}"


def get_stale_refusal(key: str, db_alias: str, status: str, *, is_same_attempt: bool) -> str:
    """Return the sentence that refuses what a person decided when another status, or attempt, was shown."""
    change = f"is {states.LABELS[status]} now" if is_same_attempt or status == states.NOT_RUN else "was started again"
    return (
        f"{key} {change} on database '{db_alias}', which the page did not show yet. Nothing was changed. Look at it "
        "again, then decide."
    )


def name_target(key: str, db_alias: str) -> str:
    """Return the key, with the database in brackets if it is not the default one."""
    return key if db_alias == DEFAULT_DB_ALIAS else f"{key} ({db_alias})"


def make_command(command: str, key: str = "", db_alias: str = DEFAULT_DB_ALIAS) -> str:
    """Return a command line that can be typed, such as ``python manage.py massmigration resume places 0002_slugs``."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    start = {"__main__.py": "python -m django", "django-admin": "django-admin"}.get(program, "python manage.py")
    database = "" if db_alias == DEFAULT_DB_ALIAS else f" --database={db_alias}"
    return " ".join([start, command, *filter(None, key.split(":"))]) + database


def describe_way_on(status: str, key: str, db_alias: str) -> str:
    """Return what runs a migration to its end that is not at work, such as ``To resume it: …``; empty if nothing."""
    action = states.get_action_towards_end(status) if status in (states.NOT_RUN, *states.STORED) else None
    if action is None:
        return ""
    aim = action if action != "start" else "run" if status == states.NOT_RUN else "start"
    again = " again" if aim == "start" else ""
    verb = "massmigrate" if action == "start" else f"massmigration {states.ACTIONS[action].verb}"
    return f"To {aim} it{again}: {make_command(verb, key, db_alias)}"
