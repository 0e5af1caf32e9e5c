"""Who may do what: what the pages ask the admin, and what that asks a migration's own ``has_run_permission()``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
    from django.db.models.options import Options
    from django.http import HttpRequest


class Access(Protocol):
    """What the pages need of ``MigrationRecordAdmin``, which a site may have overridden."""

    admin_site: AdminSite
    opts: Options[Any]

    def has_view_permission(self, request: HttpRequest) -> bool:
        """Return whether this person may see the pages."""

    def may_run_some(self, request: HttpRequest) -> bool:
        """Return whether this person may run migrations at all."""

    def has_run_permission(self, request: HttpRequest, key: str, action: str, db_alias: str) -> bool:
        """Return whether this person may do something to a migration."""

    def get_page_url(self, name: str, *arguments: str) -> str:
        """Return the URL of one of our pages; raise NoReverseMatch if it cannot have one."""


def ask_run_permission(
    migration: BaseMigration, user: AbstractBaseUser | AnonymousUser, action: str, db_alias: str
) -> bool:
    """Return whether the migration lets a person, who has ``massmigration.run_migration``, do something to it.

    Raises:
        ConfigurationError: The hook is asynchronous or a generator: what it returns would always count as a yes.
        Exception: Whatever the author's code raises.
    """
    hook: Callable[..., Any] = migration.has_run_permission
    arguments: tuple[Any, ...] = (user, action, db_alias)
    try:
        inspect.signature(hook).bind(*arguments)
    except TypeError:  # it takes the user only
        arguments = (user,)
    verdict = hook(*arguments)
    if inspect.isawaitable(verdict) or inspect.isgenerator(verdict) or inspect.isasyncgen(verdict):
        if inspect.iscoroutine(verdict) or inspect.isgenerator(verdict):
            verdict.close()
        raise ConfigurationError(
            f"has_run_permission() of {migration.key} gives no answer, because it is asynchronous or contains yield. "
            "Write it as a plain function that returns True or False.",
            key=migration.key,
        )
    return bool(verdict)
