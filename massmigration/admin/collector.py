"""Collects what the pages show: the rows of every database, with their buttons, and all about one migration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import Error as AnyDatabaseError
from django.db import connections
from django.http import Http404, HttpRequest
from django.urls import NoReverseMatch

from massmigration import api, wording
from massmigration.admin.actions import BUTTONS
from massmigration.admin.failures import get_first, get_page
from massmigration.admin.permission import Access
from massmigration.admin.rows import Button, Row
from massmigration.api import Progress
from massmigration.databases.aliases import get_aliases
from massmigration.databases.redaction import get_message
from massmigration.exceptions import MigrationNotFound
from massmigration.states import Action

logger = logging.getLogger("massmigration")

SHOWN_EVENTS: Final = 50


@dataclass(frozen=True)
class DatabaseSection:
    """The migrations on one database, and what keeps them from being shown or run."""

    db_alias: str
    rows: list[Row] = field(default_factory=list)
    problem: str = ""
    command: str = ""


class Collector:
    """Turns what the API says into what the templates show, for the person who asks.

    Args:
        access: Knows who may do what, and where the pages are.
    """

    def __init__(self, access: Access) -> None:
        self.access = access

    def get_all(self, request: HttpRequest) -> dict[str, Any]:
        """Return the context of the page with every migration."""
        sections = [self._get_section(request, db_alias) for db_alias in get_aliases()]
        shown = [section for section in sections if section.rows or section.problem]
        standings = [row.progress for section in shown for row in section.rows]
        stalled_count = sum(progress.stalled for progress in standings)
        return {
            "sections": shown,
            "summary": wording.summarize((progress.status for progress in standings), stalled_count),
            "can_run": self.access.may_run_some(request),
        }

    def get_one(self, request: HttpRequest, db_alias: str, key: str) -> dict[str, Any]:
        """Return the context of a migration's page; raise Http404 if there is no such migration or database."""
        if db_alias not in connections:
            raise Http404(f"There is no database '{db_alias}'.")
        try:
            if api.has_tables(db_alias):
                return self._get_standing(request, db_alias, key)
        except AnyDatabaseError as error:
            return {"section": _make_unreadable(db_alias, error)}
        section = self._get_section(request, db_alias)
        row = next((row for row in section.rows if row.progress.key == key), None)
        if row is None:
            raise Http404(f"There is no migration '{key}'.")
        return {"row": row, "section": section}

    def get_progress(self, key: str, db_alias: str) -> Progress:
        """Return where a migration stands; raise Http404 if there is neither a file nor a record."""
        try:
            return api.get_progress(key, db_alias)
        except MigrationNotFound as error:
            raise Http404(str(error)) from error

    def make_row(
        self, request: HttpRequest, progress: Progress, *, has_tables: bool = True, is_detail: bool = False
    ) -> Row:
        """Return a row with the buttons that this person may press now; those on its own page lead back there."""
        arguments = (progress.database, progress.app_label, progress.name)
        try:
            url = self.access.get_page_url("detail", *arguments)
        except NoReverseMatch:  # a record that something else has written
            return Row(progress, has_tables=has_tables)
        allowed = progress.allowed_actions if has_tables else ()
        buttons = tuple(
            Button(action, self._get_action_url(action, arguments, is_detail))
            for action in BUTTONS.values()
            if action.name in allowed
            and self.access.has_run_permission(request, progress.key, action.name, progress.database)
        )
        return Row(progress, buttons, url, has_tables)

    def _get_section(self, request: HttpRequest, db_alias: str) -> DatabaseSection:
        try:
            is_ready = api.has_tables(db_alias)
            standings = api.get_all_progress([db_alias])
            rows = [self.make_row(request, standing, has_tables=is_ready) for standing in standings]
        except AnyDatabaseError as error:
            return _make_unreadable(db_alias, error)
        if rows and not is_ready:
            problem = f"Database '{db_alias}' has no tables of massmigration, so nothing can be run there. Type:"
            command = f"python manage.py migrate --database={db_alias}"
            return DatabaseSection(db_alias, rows, problem, command)
        return DatabaseSection(db_alias, rows)

    def _get_standing(self, request: HttpRequest, db_alias: str, key: str) -> dict[str, Any]:
        progress = self.get_progress(key, db_alias)
        return {
            "row": self.make_row(request, progress, is_detail=True),
            "can_run": self.access.may_run_some(request),
            "events": list(reversed(api.get_events(key, db_alias, limit=SHOWN_EVENTS))),
            **get_first(key, db_alias),
            "failures_url": self.access.get_page_url("failures", db_alias, progress.app_label, progress.name),
        }

    def get_failures(self, request: HttpRequest, db_alias: str, key: str) -> dict[str, Any]:
        """Return the context of the page with the failures of a migration; raise Http404 as ``get_one``."""
        require_tables(db_alias)
        row = self.make_row(request, self.get_progress(key, db_alias), is_detail=True)
        accept_url = next((button.url for button in row.buttons if button.action.name == "accept"), "")
        return {"row": row, "accept_url": accept_url, **get_page(request, key, db_alias)}

    def _get_action_url(self, action: Action, arguments: tuple[str, ...], is_detail: bool) -> str:
        url = self.access.get_page_url("action", *arguments, action.verb)
        return f"{url}?from=detail" if is_detail and action.asks_first else url


def require_tables(db_alias: str) -> None:
    """Raise Http404 if there is no such database, or it lacks our tables."""
    if db_alias not in connections or not api.has_tables(db_alias):
        raise Http404(f"There is no database '{db_alias}' with the tables of massmigration.")


def _make_unreadable(db_alias: str, error: Exception) -> DatabaseSection:
    logger.warning("Database '%s' cannot be read: %s", db_alias, error)
    return DatabaseSection(db_alias, problem=f"Database '{db_alias}' cannot be read: {get_message(error)}")
