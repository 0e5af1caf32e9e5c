"""MigrationRecordAdmin: the read-only list of records, who may see and run, and the way to the pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db import router
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, reverse
from django.utils.html import format_html

from massmigration import api, states, wording
from massmigration.admin.pages import Pages
from massmigration.admin.permission import ask_run_permission
from massmigration.exceptions import LoadError
from massmigration.models import MigrationRecord

if TYPE_CHECKING:
    RecordAdmin = admin.ModelAdmin[MigrationRecord]
else:
    RecordAdmin = admin.ModelAdmin

logger = logging.getLogger("massmigration")


@admin.register(MigrationRecord)
class MigrationRecordAdmin(RecordAdmin):
    """Records are only read here: they are changed by what a person does on the page "Manage migrations"."""

    list_display = ("migration", "standing", "because", "moved_at")
    list_display_links = None
    list_filter = ("status",)
    search_fields = ("key",)
    ordering = ("key",)  # Firestore cannot sort downwards, which is the admin's default
    actions = None
    show_full_result_count = False

    @admin.display(description="Migration", ordering="key")
    def migration(self, record: MigrationRecord) -> str:
        """Return the key as a link to the migration's page."""
        try:
            return format_html('<a href="{}">{}</a>', self._get_url(record), record.key)
        except NoReverseMatch:  # a record that something else has written
            return record.key

    @admin.display(description="Status", ordering="status")
    def standing(self, record: MigrationRecord) -> str:
        """Return the status as a word."""
        return wording.describe_status(record.status, faked=record.faked)

    @admin.display(description="Because")
    def because(self, record: MigrationRecord) -> str:
        """Return in words why it has this status."""
        return wording.describe_reason(record.reason)

    def get_urls(self) -> list[URLPattern]:
        """Put our pages before Django's own, whose last pattern takes everything."""
        return [*Pages(self).get_urls(), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[MigrationRecord]:
        """Return the records of the database that is written to; a replica, which reads may go to, lags behind."""
        return super().get_queryset(request).using(router.db_for_write(self.model))

    def has_add_permission(self, request: HttpRequest, obj: MigrationRecord | None = None) -> bool:
        """Records are not added, changed or deleted by hand; "Reset to not run…" does it with an event."""
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_view_permission(self, request: HttpRequest, obj: MigrationRecord | None = None) -> bool:
        """Return whether this person may view records or run migrations."""
        return super().has_view_permission(request, obj) or self.may_run_some(request)

    def may_run_some(self, request: HttpRequest) -> bool:
        """Return whether this person may run migrations at all."""
        return request.user.has_perm("massmigration.run_migration")

    def has_run_permission(self, request: HttpRequest, key: str, action: str, db_alias: str) -> bool:
        """Return whether this person may do something to a migration.

        They need the permission ``massmigration.run_migration`` and the consent of the migration's own
        ``has_run_permission``. Where its file, or one that it depends on, does not work, that cannot be asked: then the
        migration can only be stopped, and superusers can reset it.

        Args:
            request: Its user asks.
            key: The migration's key.
            action: What they want to do, such as ``"pause"``.
            db_alias: The database.
        """
        if not self.may_run_some(request):
            return False
        try:
            migration = api.get_migration(key)
        except LoadError:
            keeps_record = states.ACTIONS[action].target != states.NOT_RUN
            return not states.ACTIONS[action].needs_file and (keeps_record or bool(request.user.is_superuser))
        try:
            return ask_run_permission(migration, request.user, action, db_alias)
        except Exception:  # the author's code; its error must not take the page down
            logger.exception("%s: has_run_permission() raised an error; permission is refused", key)
            return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """List the records; where there is no table of them yet, show the page that says what to type."""
        if not api.has_tables(self.get_queryset(request).db):
            return HttpResponseRedirect(self.get_page_url("manage"))
        return super().changelist_view(request, {"title": "Migration records", **(extra_context or {})})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the migration's page, which says more than the record's fields."""
        record = self.get_object(request, unquote(object_id))
        if record is None or not self.has_view_permission(request, record):
            return super().change_view(request, object_id, form_url, extra_context)
        return HttpResponseRedirect(self._get_url(record))

    def get_page_url(self, name: str, *arguments: str) -> str:
        """Return the URL of one of our pages on this admin site; raise NoReverseMatch if it cannot have one."""
        return reverse(f"admin:massmigration_{name}", args=arguments, current_app=self.admin_site.name)

    def _get_url(self, record: MigrationRecord) -> str:
        return self.get_page_url("detail", str(record._state.db), record.app_label, record.name)
