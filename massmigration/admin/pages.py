"""The pages: all migrations, one migration, the fragments they refresh themselves with, and the actions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import django
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods, require_safe

from massmigration import api, states, wording
from massmigration.admin.actions import BUTTONS, ActionFailed, perform
from massmigration.admin.collector import Collector, require_tables
from massmigration.admin.failures import ReasonForm, get_choice
from massmigration.admin.permission import Access
from massmigration.admin.rows import Row, get_expectation
from massmigration.api import Progress
from massmigration.states import Action

KEY_PATH: Final = "manage/<str:db_alias>/<str:app_label>/<str:name>/"


class Pages:
    """The views of ``MigrationRecordAdmin`` that Django's admin does not have.

    Args:
        access: Knows who may do what, and where the pages are.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.collector = Collector(access)

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs; all need a login, and those below an action the permission to run."""
        action = self._wrap(require_http_methods(["GET", "HEAD", "POST"])(self.act))
        for db_alias in connections:  # a launch that fails after the commit has to be told on the page
            action = transaction.non_atomic_requests(using=db_alias)(action)

        def show(route: str, view: Callable[..., HttpResponse], name: str, **options: Any) -> URLPattern:
            return path(route, self._wrap(require_safe(view)), options, name=f"massmigration_{name}")

        return [
            show("manage/", self.manage, "manage"),
            show("manage/rows/", self.manage, "manage_rows", is_fragment=True),
            show(KEY_PATH, self.detail, "detail"),
            show(f"{KEY_PATH}rows/", self.detail, "detail_rows", is_fragment=True),
            show(f"{KEY_PATH}failures/", self.failures, "failures"),
            path(f"{KEY_PATH}<str:action_path>/", action, name="massmigration_action"),
        ]

    def manage(self, request: HttpRequest, *, is_fragment: bool = False) -> HttpResponse:
        """Show every migration on every database, or return the part of that page that changes."""
        refresh_url = self.access.get_page_url("manage_rows")
        context = {"title": "Manage migrations", "refresh_url": refresh_url, **self.collector.get_all(request)}
        return self._render(request, "manage", context, is_fragment=is_fragment)

    def detail(
        self, request: HttpRequest, db_alias: str, app_label: str, name: str, *, is_fragment: bool = False
    ) -> HttpResponse:
        """Show one migration on one database with shards, failures, events, or return the part that changes."""
        context = self.collector.get_one(request, db_alias, f"{app_label}:{name}")
        refresh_url = self.access.get_page_url("detail_rows", db_alias, app_label, name)
        context |= {"title": f"{app_label}:{name} on database {db_alias}", "refresh_url": refresh_url}
        return self._render(request, "detail", context, is_fragment=is_fragment)

    def failures(self, request: HttpRequest, db_alias: str, app_label: str, name: str) -> HttpResponse:
        """Show the objects that failed, with whole tracebacks; some of them can be chosen there and accepted."""
        context = self.collector.get_failures(request, db_alias, f"{app_label}:{name}")
        title = f"Failures of {app_label}:{name} on database {db_alias}"
        return self._render(request, "failures", {"title": title, **context})

    def act(self, request: HttpRequest, db_alias: str, app_label: str, name: str, action_path: str) -> HttpResponse:
        """Ask (GET) or do it (POST), and go back to where the button was."""
        action, key = BUTTONS.get(action_path), f"{app_label}:{name}"
        if action is None:
            raise Http404(f"There is no action '{action_path}'.")
        if not self.access.may_run_some(request):
            raise PermissionDenied
        require_tables(db_alias)
        progress = self.collector.get_progress(key, db_alias)
        if not self.access.has_run_permission(request, key, action.name, db_alias):
            raise PermissionDenied
        form = ReasonForm(request.POST or None) if action.name == "accept" else None
        if "chosen" in request.GET and "failure" not in request.GET:
            messages.error(request, "No failure was chosen. Choose one, or accept all of them.")
            return HttpResponseRedirect(self.access.get_page_url("failures", db_alias, app_label, name))
        if request.method != "POST" or (form and not self._get_refusal(action, progress) and not form.is_valid()):
            return self._ask(request, action, progress, form)
        options: dict[str, Any] = {"seen": _read_seen(request, action)}
        if form is not None:
            reason = form.cleaned_data["reason"] if form.is_valid() else ""
            options |= {"reason": reason, **get_choice(request, key, db_alias).options}
        try:
            sentence = perform(action, key, db_alias, request.user, **options)  # type: ignore[arg-type]
        except ActionFailed as error:
            messages.error(request, str(error))
        else:
            messages.success(request, sentence)
        if request.POST.get("from") == "detail" and action.name != "reset":
            return HttpResponseRedirect(self.access.get_page_url("detail", db_alias, app_label, name))
        return HttpResponseRedirect(self.access.get_page_url("manage"))

    def _ask(self, request: HttpRequest, action: Action, progress: Progress, form: ReasonForm | None) -> HttpResponse:
        page = ("detail", progress.database, progress.app_label, progress.name)
        is_from_detail = "detail" in (request.GET.get("from"), request.POST.get("from"))
        context: dict[str, Any] = {
            "title": f"{action.button.removesuffix('…')}: {progress.key}",
            "action": action,
            "row": Row(progress),
            "is_from_detail": is_from_detail,
            "back_url": self.access.get_page_url(*page if is_from_detail else ("manage",)),
            "refusal": self._get_refusal(action, progress),
            "form": form,
        }
        if form is not None:
            context["choice"] = get_choice(request, progress.key, progress.database)
        if progress.status not in (states.BROKEN, states.ORPHANED):
            context["migration"] = api.get_migration(progress.key)
            if action.makes_attempt and not context["refusal"]:
                preparation = api.get_preparation(progress.key, progress.database)
                context |= {"preparation": preparation, "rows_text": get_expectation(preparation)}
        return self._render(request, "confirm", context)

    def _get_refusal(self, action: Action, progress: Progress) -> str:
        if action.name in progress.allowed_actions:
            return ""
        if progress.status in (states.BROKEN, states.ORPHANED):
            cause = progress.error or wording.FILE_GONE
            return f"This cannot be done, because the file of the migration does not work. {cause}"
        if action.name == "accept" and states.is_legal(action.name, progress.status):
            return f"{progress.key} has no open failure of an object on database '{progress.database}'."
        if states.is_legal(action.name, progress.status):
            return f"{progress.key} is not stalled on database '{progress.database}': a worker is working on it."
        return wording.get_refusal(action.name, progress.key, progress.database, progress.status)

    def _wrap(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        """Return the view behind the login, for those who may see the pages."""

        def check_permission(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.access.has_view_permission(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return self.access.admin_site.admin_view(check_permission)

    def _render(
        self, request: HttpRequest, page: str, context: dict[str, Any], *, is_fragment: bool = False
    ) -> TemplateResponse:
        site = self.access.admin_site
        request.current_app = site.name
        if is_fragment:
            return TemplateResponse(request, f"admin/massmigration/{page}_rows.html", context)
        base = {
            **site.each_context(request),
            "opts": self.access.opts,
            "is_manage_page": page == "manage",
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
        }
        return TemplateResponse(request, f"admin/massmigration/{page}.html", {**base, **context})


def _read_seen(request: HttpRequest, action: Action) -> api.Seen | None:
    """Return what the page showed of the record when the button was pressed; None if the form does not say."""
    attempt, _, status = request.POST.get("standing", "").partition(" ")
    if not status:
        return None
    try:
        attempt_uuid = uuid.UUID(attempt) if attempt else None
    except ValueError:
        return None
    return api.Seen(attempt_uuid, "" if action.stops else status)
