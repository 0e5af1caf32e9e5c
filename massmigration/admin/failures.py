"""The objects that failed, as the pages show them, and which of them a person is about to accept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from massmigration import api
from massmigration.models import MigrationFailure

PER_PAGE: Final = 50
SHOWN: Final = 20
"""So many at most stand on a migration's own page, which refreshes itself, and on the one that asks."""

MESSAGE_LIMIT: Final = 600
TRACEBACK_LIMIT: Final = 3_000
CUT_MARK: Final = "(cut) … "


@dataclass(frozen=True)
class FailureRow:
    """A failure with its texts cut to what a page that refreshes itself should carry."""

    failure: MigrationFailure

    @property
    def error_class(self) -> str:
        """The error's class, without a module that says nothing."""
        return self.failure.error_class.removeprefix("builtins.")

    @property
    def message(self) -> str:
        """The beginning of the message."""
        text = self.failure.message
        return text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]} … (cut)"

    @property
    def traceback(self) -> str:
        """The end of the traceback, where the error is."""
        text = self.failure.traceback
        return text if len(text) <= TRACEBACK_LIMIT else f"{CUT_MARK}{text[-TRACEBACK_LIMIT:]}"


class ReasonForm(forms.Form):
    """Why objects that failed may stay as they are."""

    reason = forms.CharField(
        max_length=2_000,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text="Others read it among the events.",
        error_messages={"required": "Say why these objects may stay as they are."},
    )


@dataclass(frozen=True)
class Choice:
    """The failures that a person is about to accept.

    Attributes:
        failures: Those that are open still, oldest first.
        is_all: Whether none was named, so that all that are shown are meant.
    """

    failures: list[MigrationFailure]
    is_all: bool

    @property
    def shown(self) -> list[FailureRow]:
        """The first of them, for the page that asks."""
        return [FailureRow(failure) for failure in self.failures[:SHOWN]]

    @property
    def seen(self) -> str:
        """Up to when they failed: what fails while somebody reads the page is not meant."""
        return max(failure.failed_at for failure in self.failures).isoformat() if self.failures else ""

    @property
    def ids(self) -> list[str]:
        """Their primary keys."""
        return [failure.pk for failure in self.failures]


def get_choice(request: HttpRequest, key: str, db_alias: str) -> Choice:
    """Return which failures the request names, or all that had failed when the page was shown."""
    data = request.POST if request.method == "POST" else request.GET
    named, is_all = set(data.getlist("failure")), not data.getlist("failure")
    try:
        seen = parse_datetime(data.get("seen", ""))
    except ValueError:
        seen = None
    acceptable = [failure for failure in api.get_failures(key, db_alias) if is_acceptable(failure)]
    if not is_all:
        return Choice([failure for failure in acceptable if failure.pk in named], is_all)
    return Choice([failure for failure in acceptable if seen is None or failure.failed_at <= seen], is_all)


def is_acceptable(failure: MigrationFailure) -> bool:
    """Return whether a person may accept it: it is open, and that of an object."""
    return failure.status == MigrationFailure.OPEN and failure.object_key is not None


def get_page(request: HttpRequest, failures: Iterable[MigrationFailure]) -> dict[str, Any]:
    """Return the context of the page with all failures: open ones, or, if asked for, the others too.

    Args:
        request: ``?all=1`` asks for all of them, ``?page=2`` for the second page.
        failures: Of the record's attempt.
    """
    everything = list(failures)
    shows_all = bool(request.GET.get("all"))
    wanted = [failure for failure in everything if shows_all or failure.status == MigrationFailure.OPEN]
    return {
        "page": Paginator([FailureRow(failure) for failure in wanted], PER_PAGE).get_page(request.GET.get("page")),
        "shows_all": shows_all,
        "closed_count": sum(failure.status != MigrationFailure.OPEN for failure in everything),
        "acceptable_count": sum(map(is_acceptable, everything)),
    }


def get_first(failures: Iterable[MigrationFailure]) -> list[FailureRow]:
    """Return the failures for a migration's own page, open ones first."""
    ordered = sorted(failures, key=lambda failure: failure.status != MigrationFailure.OPEN)
    return [FailureRow(failure) for failure in ordered[:SHOWN]]
