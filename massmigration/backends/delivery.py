"""Checks that the tasks which a queue delivers over HTTP are not kept away by the settings of the site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from massmigration.backends.callers import is_emulated


def check_url(url: str) -> Iterator[checks.CheckMessage]:
    """Yield what is wrong with the base URL that tasks are sent to (W004, W005)."""
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


def check_redirect(path: str) -> Iterator[checks.CheckMessage]:
    """Yield what is wrong with the path that App Engine delivers tasks to (W006)."""
    is_exempt = any(re.search(pattern, path.lstrip("/")) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    middleware = "django.middleware.security.SecurityMiddleware"
    if settings.SECURE_SSL_REDIRECT and middleware in settings.MIDDLEWARE and not is_exempt:
        text = (
            "SECURE_SSL_REDIRECT is on, but App Engine delivers tasks without TLS and follows no redirects, so none "
            "arrives."
        )
        hint = f'Add r"^{path.lstrip("/").removesuffix("run/")}" to SECURE_REDIRECT_EXEMPT.'
        yield checks.Warning(text, hint=hint, id="massmigration.W006")
