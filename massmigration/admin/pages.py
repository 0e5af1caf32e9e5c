"""The pages: all migrations, one migration, the fragments they refresh themselves with, and the actions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.views.decorators.http import require_http_methods, require_safe

from massmigration import api, states
from massmigration.admin.actions import ACTIONS, Action, ActionFailed, perform
from massmigration.admin.facts import get_preparation, has_tables
from massmigration.admin.rows import Button, Row, get_expectation, get_summary
from massmigration.api import Progress
from massmigration.exceptions import MigrationNotFound

if TYPE_CHECKING:
    from massmigration.admin.record import MigrationRecordAdmin

logger = logging.getLogger("massmigration")

SHOWN_EVENTS: Final = 50
SHOWN_FAILURES: Final = 50
KEY_PATH: Final = "manage/<str:db_alias>/<str:app_label>/<str:name>/"


@dataclass(frozen=True)
class DatabaseSection:
    """The migrations on one database, and what keeps them from being shown or run."""

    db_alias: str
    rows: list[Row] = field(default_factory=list)
    problem: str = ""
    command: str = ""


class Pages:
    """The views of ``MigrationRecordAdmin`` that Django's admin does not have.

    Args:
        model_admin: Gives the permissions and the admin site.
    """

    def __init__(self, model_admin: MigrationRecordAdmin) -> None:
        self.model_admin = model_admin

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs; all need a login, and those below an action the permission to run."""
        action = self._wrap(require_http_methods(["GET", "HEAD", "POST"])(self.act))
        for db_alias in connections:  # a launch that fails after the commit has to be told on the page
            action = transaction.non_atomic_requests(using=db_alias)(action)
        return [
            path("manage/", self._wrap(require_safe(self.manage)), name="massmigration_manage"),
            path("manage/rows/", self._wrap(require_safe(self.manage_rows)), name="massmigration_manage_rows"),
            path(KEY_PATH, self._wrap(require_safe(self.detail)), name="massmigration_detail"),
            path(f"{KEY_PATH}rows/", self._wrap(require_safe(self.detail_rows)), name="massmigration_detail_rows"),
            path(f"{KEY_PATH}<str:action_path>/", action, name="massmigration_action"),
        ]

    def manage(self, request: HttpRequest) -> HttpResponse:
        """Show every migration on every database."""
        refresh_url = self._reverse("manage_rows")
        context = {"title": "Manage migrations", "refresh_url": refresh_url, **self._get_all(request)}
        return self._render(request, "manage.html", context)

    def manage_rows(self, request: HttpRequest) -> HttpResponse:
        """Return the part of that page that changes."""
        return self._render(request, "manage_rows.html", self._get_all(request), is_fragment=True)

    def detail(self, request: HttpRequest, db_alias: str, app_label: str, name: str) -> HttpResponse:
        """Show one migration on one database: shards, failures, events."""
        context = self._get_one(request, db_alias, f"{app_label}:{name}")
        refresh_url = self._reverse("detail_rows", db_alias, app_label, name)
        title = f"{app_label}:{name} on database {db_alias}"
        return self._render(request, "detail.html", {"title": title, "refresh_url": refresh_url, **context})

    def detail_rows(self, request: HttpRequest, db_alias: str, app_label: str, name: str) -> HttpResponse:
        """Return the part of that page that changes."""
        context = self._get_one(request, db_alias, f"{app_label}:{name}")
        return self._render(request, "detail_rows.html", context, is_fragment=True)

    def act(self, request: HttpRequest, db_alias: str, app_label: str, name: str, action_path: str) -> HttpResponse:
        """Ask (GET) or do it (POST), and go back to where the button was."""
        action, key = ACTIONS.get(action_path), f"{app_label}:{name}"
        if action is None:
            raise Http404(f"There is no action '{action_path}'.")
        if not self.model_admin.has_run_permission(request, key):
            raise PermissionDenied
        self._require_tables(db_alias)
        progress = self._get_progress(key, db_alias)
        if request.method != "POST":
            return self._ask(request, action, progress)
        try:
            sentence = perform(action, key, db_alias, request.user)  # type: ignore[arg-type]
        except ActionFailed as error:
            messages.error(request, str(error))
        else:
            messages.success(request, sentence)
        if request.POST.get("from") == "detail" and action.name != "reset":
            return HttpResponseRedirect(self._reverse("detail", db_alias, app_label, name))
        return HttpResponseRedirect(self._reverse("manage"))

    def _ask(self, request: HttpRequest, action: Action, progress: Progress) -> HttpResponse:
        row = self._make_row(request, progress, with_buttons=False)
        is_from_detail = request.GET.get("from") == "detail"
        context: dict[str, Any] = {
            "title": f"{action.label.rstrip('…')}: {progress.key}",
            "action": action,
            "row": row,
            "is_from_detail": is_from_detail,
            "back_url": row.url if is_from_detail else self._reverse("manage"),
            "refusal": self._get_refusal(action, progress),
        }
        if progress.status not in (states.BROKEN, states.ORPHANED):
            context["migration"] = api.get_migration(progress.key)
            if action.is_launch and not context["refusal"]:
                preparation = get_preparation(progress.key, progress.database)
                context |= {"preparation": preparation, "rows_text": get_expectation(preparation)}
        return self._render(request, "confirm.html", context)

    def _get_refusal(self, action: Action, progress: Progress) -> str:
        if action.name in api.get_allowed_actions(progress.key, progress.database):
            return ""
        if progress.status in (states.BROKEN, states.ORPHANED):
            cause = progress.error or "There is no file with this key any more."
            return f"This cannot be done, because the file of the migration does not work. {cause}"
        if states.is_legal(action.name, progress.status):
            return f"{progress.key} is not stalled on database '{progress.database}': it is being worked on."
        return states.get_refusal(action.name, progress.key, progress.database, progress.status)

    def _get_all(self, request: HttpRequest) -> dict[str, Any]:
        sections = [self._get_section(request, db_alias) for db_alias in connections]
        shown = [section for section in sections if section.rows or section.problem]
        rows = [row for section in shown for row in section.rows]
        return {
            "sections": shown,
            "summary": get_summary(rows),
            "can_run": self.model_admin.may_run_some(request),
        }

    def _get_section(self, request: HttpRequest, db_alias: str) -> DatabaseSection:
        try:
            is_ready = has_tables(db_alias)
            standings = api.get_all_progress([db_alias])
            rows = [self._make_row(request, standing, has_tables=is_ready) for standing in standings]
        except DatabaseError as error:
            logger.warning("Database '%s' cannot be read: %s", db_alias, error)
            return DatabaseSection(db_alias, problem=f"Database '{db_alias}' cannot be read: {error}")
        if rows and not is_ready:
            problem = f"Database '{db_alias}' has no tables of massmigration, so nothing can be run there. Type:"
            command = f"python manage.py migrate --database={db_alias}"
            return DatabaseSection(db_alias, rows, problem, command)
        return DatabaseSection(db_alias, rows)

    def _get_one(self, request: HttpRequest, db_alias: str, key: str) -> dict[str, Any]:
        if db_alias not in connections:
            raise Http404(f"There is no database '{db_alias}'.")
        if not has_tables(db_alias):
            section = self._get_section(request, db_alias)
            row = next((row for row in section.rows if row.progress.key == key), None)
            if row is None:
                raise Http404(f"There is no migration '{key}'.")
            return {"row": row, "section": section}
        row = self._make_row(request, self._get_progress(key, db_alias), is_detail=True)
        failures = api.get_failures(key, db_alias)
        return {
            "row": row,
            "can_run": self.model_admin.may_run_some(request),
            "events": list(reversed(api.get_events(key, db_alias, limit=SHOWN_EVENTS))),
            "failures": failures[:SHOWN_FAILURES],
            "failure_count": len(failures),
        }

    def _get_progress(self, key: str, db_alias: str) -> Progress:
        try:
            return api.get_progress(key, db_alias)
        except MigrationNotFound as error:
            raise Http404(str(error)) from error

    def _require_tables(self, db_alias: str) -> None:
        if db_alias not in connections or not has_tables(db_alias):
            raise Http404(f"There is no database '{db_alias}' with the tables of massmigration.")

    def _make_row(
        self,
        request: HttpRequest,
        progress: Progress,
        *,
        with_buttons: bool = True,
        has_tables: bool = True,
        is_detail: bool = False,
    ) -> Row:
        arguments = (progress.database, progress.app_label, progress.name)
        try:
            url = self._reverse("detail", *arguments)
        except NoReverseMatch:  # a record that something else has written
            return Row(progress, has_tables=has_tables)
        buttons: tuple[Button, ...] = ()
        if with_buttons and has_tables and self.model_admin.has_run_permission(request, progress.key):
            allowed = api.get_allowed_actions(progress.key, progress.database)
            buttons = tuple(
                Button(action, self._get_action_url(action, arguments, is_detail))
                for action in ACTIONS.values()
                if action.name in allowed
            )
        return Row(progress, buttons, url, has_tables)

    def _get_action_url(self, action: Action, arguments: tuple[str, ...], is_detail: bool) -> str:
        url = self._reverse("action", *arguments, action.path)
        return f"{url}?from=detail" if is_detail and action.asks_first else url

    def _reverse(self, name: str, *arguments: str) -> str:
        site = self.model_admin.admin_site.name
        return reverse(f"admin:massmigration_{name}", args=arguments, current_app=site)

    def _wrap(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        """Return the view behind the login, for those who may see the pages."""

        def check_permission(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
            if not self.model_admin.has_view_permission(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return self.model_admin.admin_site.admin_view(check_permission)

    def _render(
        self, request: HttpRequest, template: str, context: dict[str, Any], *, is_fragment: bool = False
    ) -> TemplateResponse:
        site = self.model_admin.admin_site
        request.current_app = site.name
        base = {} if is_fragment else {**site.each_context(request), "opts": self.model_admin.opts}
        return TemplateResponse(request, f"admin/massmigration/{template}", {**base, **context})
