"""How the standing of a migration is put into words and numbers for the pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.contrib.humanize.templatetags.humanize import intcomma

from massmigration import states
from massmigration.admin.actions import Action
from massmigration.api import Preparation, Progress, ShardProgress

SHARDS_SHOWN: Final = 200
"""Key ranges on a migration's page, which refreshes itself."""

_SHARD_ORDER: Final = {"failed": 0, "running": 1, "ready": 2, "done": 3}
_SUMMARY_ORDER: Final = (*states.STORED, states.BROKEN, states.ORPHANED, states.NOT_RUN)


@dataclass(frozen=True)
class Button:
    """A button of a row: what it does, and where."""

    action: Action
    url: str


@dataclass(frozen=True)
class Row:
    """One migration on one database, as the pages show it.

    Attributes:
        progress: Where it stands.
        buttons: What this person may do now.
        url: The page of this migration on this database; empty if its key cannot be part of a URL.
        has_tables: Whether the database has our tables.
    """

    progress: Progress
    buttons: tuple[Button, ...] = ()
    url: str = ""
    has_tables: bool = True

    @property
    def element_id(self) -> str:
        """Identifies the row's elements on the page, so that a refresh finds them again."""
        return f"massmigration-{self.progress.database}-{self.progress.key}"

    @property
    def status_label(self) -> str:
        """The status as a word."""
        return states.LABELS[self.progress.status]

    @property
    def reason_label(self) -> str:
        """Why it is in this status, in words."""
        return states.REASONS.get(self.progress.reason or "", self.progress.reason or "")

    @property
    def is_active(self) -> bool:
        """Whether workers may be at work on it."""
        return self.progress.status in states.ACTIVE

    @property
    def error(self) -> str:
        """What went wrong; that tables are missing is said once for the whole database."""
        if not self.has_tables:
            return ""
        if self.progress.status == states.ORPHANED and not self.progress.error:
            return "There is no file for this record any more. Bring the file back, or reset the record."
        return self.progress.error or ""

    @property
    def log_path(self) -> str:
        """The log, while somebody may want to look into it."""
        wants = self.is_active or self.progress.status in (states.PAUSED, states.FAILED)
        return self.progress.log_path if wants else ""

    @property
    def standing(self) -> str:
        """Attempt and status as they are shown, which the buttons send back: another state is not acted on."""
        return f"{self.progress.attempt_uuid or ''} {self.progress.record_status}"

    @property
    def shards(self) -> list[tuple[ShardProgress, str]]:
        """The shards to show, each with the number of its rows that are done; of very many those with work first."""
        found = self.progress.shard_rows
        if len(found) > SHARDS_SHOWN:
            found = tuple(sorted(found, key=lambda shard: _SHARD_ORDER.get(shard.status, 0))[:SHARDS_SHOWN])
        return [(shard, intcomma(shard.processed)) for shard in found]

    @property
    def warnings(self) -> list[str]:
        """What a person should look at although nothing failed."""
        found = [self.progress.warning] if self.progress.warning else []
        if self.progress.source_changed and self.progress.status != states.APPLIED:
            found.append("The file has changed since this attempt began.")
        return found

    @property
    def shows_bar(self) -> bool:
        """Whether a progress bar says something: not before the start, and not after a fake."""
        return self.progress.percent is not None or (self.is_active and self.progress.attempt_uuid is not None)

    @property
    def numbers(self) -> list[str]:
        """Rows, rate, time left and shards, each as a short text; only what is known."""
        progress = self.progress
        found = [get_row_count(progress)]
        if progress.changed is not None and not self.is_active:
            found.append(f"{intcomma(progress.changed)} changed")
        if progress.failed:
            found.append(f"{intcomma(progress.failed)} failed")
        if progress.rate is not None and self.is_active:
            found.append(f"{intcomma(round(progress.rate))} rows/s")
        if progress.eta_seconds is not None:
            found.append(f"{get_duration(progress.eta_seconds)} left")
        if progress.shards is not None and self.is_active:
            found.append(f"{progress.shards_done} of {progress.shards} shards")
        if self.is_active and progress.workers_alive:
            found.append(f"{progress.workers_alive} worker{'s' if progress.workers_alive > 1 else ''}")
        return [text for text in found if text]


def get_row_count(progress: Progress) -> str:
    """Return how many rows are done, such as "1,200 of about 5,000 rows", or nothing if that is unknown."""
    if progress.processed is None or progress.attempt_uuid is None:
        return ""
    processed = intcomma(progress.processed)
    if progress.total is None:
        return f"{processed} row{'' if progress.processed == 1 else 's'}"
    about = "about " if progress.total_is_estimate else ""
    return f"{processed} of {about}{intcomma(progress.total)} row{'' if progress.total == 1 else 's'}"


def get_expectation(preparation: Preparation) -> str:
    """Return how many rows a run will have to do, as far as that is known before."""
    if preparation.missing:
        return "counted when the dependencies are applied"
    if preparation.rows_error:
        return f"could not be counted: {preparation.rows_error}"
    if preparation.rows is None:
        return "not known before the start"
    return f"{'about ' if preparation.rows_are_estimated else ''}{intcomma(preparation.rows)}"


def get_duration(seconds: float) -> str:
    """Return a duration as a person says it: "42 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min" if minutes >= 10 else f"{minutes} min {whole % 60} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def get_summary(rows: Iterable[Row]) -> str:
    """Return how many migrations there are in each status, such as "2 running, 1 failed, 4 applied"."""
    counts = Counter(row.progress.status for row in rows)
    parts = [f"{counts[status]} {states.LABELS[status]}" for status in _SUMMARY_ORDER if counts[status]]
    stalled = sum(row.progress.stalled for row in rows)
    if stalled:
        parts.append(f"{stalled} of them stalled")
    return ", ".join(parts)
