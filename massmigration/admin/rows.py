"""One migration on one database, as the pages show it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from massmigration import states, wording
from massmigration.api import Preparation, Progress, ShardProgress
from massmigration.states import Action

SHARDS_SHOWN: Final = 200
"""Key ranges on a migration's page, which refreshes itself."""

_SHARD_ORDER: Final = {"failed": 0, "running": 1, "ready": 2, "done": 3}


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

    @cached_property
    def run(self) -> wording.Run:
        """Where it stands in words."""
        return wording.Run.of(self.progress)

    @property
    def element_id(self) -> str:
        """Identifies the row's elements on the page, so that a refresh finds them again."""
        return f"massmigration-{self.progress.database}-{self.progress.key}"

    @property
    def reason_label(self) -> str:
        """Why it is in this status, in words."""
        return wording.describe_reason(self.progress.reason)

    @property
    def error(self) -> str:
        """What went wrong; that tables are missing is said once for the whole database."""
        if not self.has_tables:
            return ""
        if self.progress.status == states.ORPHANED and not self.progress.error:
            return wording.FILE_GONE
        return self.progress.error or ""

    @property
    def log_path(self) -> str:
        """The log, while a person may want to look into it."""
        wants = self.run.is_active or self.progress.status in (states.PAUSED, states.FAILED)
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
        return [(shard, f"{shard.processed:,}") for shard in found]

    @property
    def warnings(self) -> list[str]:
        """What a person should look at although nothing failed."""
        found = [self.progress.warning] if self.progress.warning else []
        if self.progress.source_changed and self.progress.status != states.APPLIED:
            found.append(wording.FILE_CHANGED)
        return found

    @property
    def shows_bar(self) -> bool:
        """Whether a progress bar says something: not before the start, and not after a fake."""
        return self.progress.percent is not None or (self.run.is_active and self.progress.attempt_uuid is not None)


def get_expectation(preparation: Preparation) -> str:
    """Return how many rows a run will have to do, as far as that is known before."""
    if preparation.missing:
        return "counted when the dependencies are applied"
    if preparation.rows_error:
        return f"could not be counted: {preparation.rows_error}"
    if preparation.rows is None:
        return "not known before the start"
    return wording.count(preparation.rows, "rows", is_estimate=preparation.rows_are_estimated)
