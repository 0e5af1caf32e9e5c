"""What ``manage.py check`` says about the queues of Google Cloud, if a migration runs on one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from massmigration.backends import djangae
from massmigration.backends.base import BaseBackend, get_backend
from massmigration.backends.callers import is_emulated
from massmigration.backends.cloudtasks import CloudTasksBackend, find_missing_settings, get_task_path
from massmigration.backends.djangae import DjangaeBackend
from massmigration.conf import conf
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.exceptions import ConfigurationError


def check_cloud_tasks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check what CloudTasksBackend needs (E010, E011) and what hinders it (W004 to W006), if a migration runs on it."""
    if not _uses(CloudTasksBackend):
        return []
    until_then = "Until then migrations on CloudTasksBackend cannot be started."
    messages: list[checks.CheckMessage] = []
    try:
        for fault in find_missing_settings():
            messages.append(checks.Error(fault, hint=until_then, id="massmigration.E010"))
        try:
            path = get_task_path()
        except ConfigurationError as error:
            messages.append(checks.Error(str(error), hint=until_then, id="massmigration.E011"))
        else:
            messages += _check_http(conf.task_url) if conf.task_url else _check_redirect(path)
    except ConfigurationError:  # check_settings reports it
        pass
    return messages


def check_djangae(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check what DjangaeBackend needs (E012) and what hinders it (W006, W008), if a migration runs on it."""
    if not _uses(DjangaeBackend):
        return []
    messages: list[checks.CheckMessage] = [
        checks.Error(f"DjangaeBackend cannot be used. {fault.text}", hint=fault.hint, id="massmigration.E012")
        for fault in djangae.find_setup_faults()
    ]
    messages += [checks.Warning(text, hint=hint, id="massmigration.W008") for text, hint in djangae.find_wrappings()]
    path = djangae.get_handler_path()
    return messages if path is None else [*messages, *_check_redirect(path)]


def _uses(backend: type[BaseBackend]) -> bool:
    try:
        loaded = [one for one in get_loader().migrations.values() if one.backend or one.backend_params]
    except ConfigurationError:
        loaded = []
    for migration in (BaseMigration("massmigration", "0000_check"), *loaded):
        try:
            if isinstance(get_backend(migration), backend):
                return True
        except ConfigurationError:  # other checks report it
            continue
    return False


def _check_http(url: str) -> Iterator[checks.CheckMessage]:
    host = urlsplit(url).hostname or ""
    if url.startswith("http://") and not is_emulated():
        text = "MASSMIGRATION_TASK_URL begins with http://, so that tokens of Cloud Tasks can be read on their way."
        yield checks.Warning(text, hint="Let it begin with https://.", id="massmigration.W004")
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if not validate_host(host, allowed):
        text = (
            f"ALLOWED_HOSTS does not have {host!r}, the host in MASSMIGRATION_TASK_URL, so each task is answered 400."
        )
        yield checks.Warning(text, hint=f"Add {host!r} to ALLOWED_HOSTS.", id="massmigration.W005")


def _check_redirect(path: str) -> Iterator[checks.CheckMessage]:
    is_exempt = any(re.search(pattern, path.lstrip("/")) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    middleware = "django.middleware.security.SecurityMiddleware"
    if settings.SECURE_SSL_REDIRECT and middleware in settings.MIDDLEWARE and not is_exempt:
        text = (
            "SECURE_SSL_REDIRECT is on, but App Engine delivers tasks without TLS and follows no redirects, so none "
            "arrives."
        )
        hint = f'Add r"^{path.lstrip("/").removesuffix("run/")}" to SECURE_REDIRECT_EXEMPT.'
        yield checks.Warning(text, hint=hint, id="massmigration.W006")
