"""The objects that failed, as the pages show them, and which of them a person is about to accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from massmigration import api, wording
from massmigration.models import MigrationFailure

PER_PAGE: Final = 50
SHOWN: Final = 20
"""At most this number is shown on a migration's own page, which refreshes itself, and on the one that asks."""

NAMED: Final = 500
"""Failures that one form may name."""

MESSAGE_LIMIT: Final = 600
TRACEBACK_LIMIT: Final = 3_000
CUT_MARK: Final = "(cut) … "


@dataclass(frozen=True)
class FailureRow:
    """A failure with its texts cut to what a page that refreshes itself should carry."""

    failure: MigrationFailure

    @property
    def error(self) -> str:
        """Class and message of the error."""
        return wording.describe_error(self.failure.error_class, self.failure.message, MESSAGE_LIMIT)

    @property
    def whole_error(self) -> str:
        """The same, however long."""
        return wording.describe_error(self.failure.error_class, self.failure.message)

    @property
    def traceback(self) -> str:
        """The end of the traceback, where the error is."""
        text = self.failure.traceback
        return text if len(text) <= TRACEBACK_LIMIT else f"{CUT_MARK}{text[-TRACEBACK_LIMIT:]}"


class ReasonForm(forms.Form):
    """Why the objects that failed are skipped."""

    reason = forms.CharField(
        max_length=2_000,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text="Others read it among the events.",
        error_messages={"required": "Say why these objects are skipped."},
    )


@dataclass(frozen=True)
class Choice:
    """The failures that a person is about to accept.

    Attributes:
        shown: The first of those that are open still, for the page that asks.
        count: How many there are.
        is_all: Whether none was named, so that all that are shown are meant.
        seen: Up to when they failed: what fails while a person reads the page is not meant.
        ids: The primary keys of those that were named.
    """

    shown: list[FailureRow]
    count: int
    is_all: bool
    seen: datetime | None = None
    ids: tuple[str, ...] = ()

    @property
    def seen_text(self) -> str:
        """The time as the form carries it."""
        return self.seen.isoformat() if self.seen is not None else ""

    @property
    def options(self) -> dict[str, Any]:
        """What ``api.accept_failures`` is to be given."""
        return {"until": self.seen} if self.is_all else {"failures": self.ids}


def get_choice(request: HttpRequest, key: str, db_alias: str) -> Choice:
    """Return which failures the request names, or all that had failed when the page was shown."""
    data = request.POST if request.method == "POST" else request.GET
    named = tuple(dict.fromkeys(data.getlist("failure")))[:NAMED]
    if named:
        found = [row for row in api.get_acceptable_failures(key, db_alias, ids=named) if row.pk in named]
        ids = tuple(failure.pk for failure in found)
        return Choice([FailureRow(failure) for failure in found[:SHOWN]], len(found), is_all=False, ids=ids)
    try:
        seen = parse_datetime(data.get("seen", ""))
    except ValueError:
        seen = None
    if seen is None:
        seen = api.get_last_failed_at(key, db_alias)
    first = api.get_acceptable_failures(key, db_alias, until=seen, limit=SHOWN)
    count = api.count_failures(key, db_alias).acceptable
    return Choice([FailureRow(failure) for failure in first], max(count, len(first)), is_all=True, seen=seen)


class _Failures(Sequence[FailureRow]):
    """Failures of which a paginator reads the page it shows only."""

    def __init__(self, key: str, db_alias: str, status: str | None, count: int) -> None:
        self._key, self._db_alias, self._status, self._count = key, db_alias, status, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: Any) -> Any:
        found = api.get_failures(
            self._key, self._db_alias, status=self._status, offset=part.start, limit=part.stop - part.start
        )
        return [FailureRow(failure) for failure in found]


def get_page(request: HttpRequest, key: str, db_alias: str) -> dict[str, Any]:
    """Return the context of the page with the failures: open ones or, with ``?all=1``, the others too."""
    counts = api.count_failures(key, db_alias)
    shows_all = bool(request.GET.get("all"))
    status, count = (None, counts.total) if shows_all else (MigrationFailure.OPEN, counts.open)
    what, closed = "failures" if shows_all else "open failures", counts.total - counts.open
    return {
        "page": Paginator(_Failures(key, db_alias, status, count), PER_PAGE).get_page(request.GET.get("page")),
        "shows_all": shows_all,
        "count_text": wording.count(count, what) if count else f"no {what}",
        "closed_count": closed,
        "closed_text": f"the {closed:,} that {wording.was(closed)} retried or accepted",
        "acceptable_count": counts.acceptable,
    }


def get_first(key: str, db_alias: str) -> dict[str, Any]:
    """Return the failures for a migration's own page, open ones first, and how many there are."""
    counts = api.count_failures(key, db_alias)
    found: list[MigrationFailure] = []
    for status in (MigrationFailure.OPEN, MigrationFailure.RETRIED, MigrationFailure.ACCEPTED):
        count = counts.open if status == MigrationFailure.OPEN else counts.total - counts.open
        if count and len(found) < SHOWN:
            found += api.get_failures(key, db_alias, status=status, limit=SHOWN - len(found))
    return {"failures": [FailureRow(failure) for failure in found], "failure_count": counts.total}
