"""Who may call our URLs: a queue or the cron of App Engine, or Google in the name of the configured account.

It also finds the settings of the site that would keep these calls away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from massmigration.backends.oidc import TokenRefused, check_token
from massmigration.conf import conf


def get_emulator_host() -> str:
    """Return where the emulator of Cloud Tasks listens, or an empty string."""
    return os.environ.get("TASKS_EMULATOR_HOST", "")


def is_app_engine() -> bool:
    """Return whether this is App Engine, which removes ``X-AppEngine-…`` headers from requests from outside.

    On a developer's machine djangae's sandbox sets ``GAE_ENV`` to "development" and Google's development server to
    "localdev"; no headers are removed there.
    https://cloud.google.com/appengine/docs/standard/reference/request-headers
    """
    return os.environ.get("GAE_ENV") == "standard"


def is_emulated() -> bool:
    """Return whether tasks come from an emulator, which sends no token; never true on a hosted site."""
    return bool(get_emulator_host()) and not is_app_engine() and not os.environ.get("K_SERVICE")


def check_task_caller(headers: Mapping[str, str]) -> None:
    """Raise an error unless a request with these headers may deliver a task; its body is signed as well.

    Raises:
        TokenRefused: It may not; the message says why.
        CertificatesUnreachable: It cannot be verified for now.
    """
    if conf.task_url:
        if not is_emulated():
            _check_token(headers)
    elif is_app_engine():
        if not headers.get("X-AppEngine-QueueName"):
            raise TokenRefused("the header X-AppEngine-QueueName is missing, so no queue of App Engine sent it")
    elif not is_emulated():
        raise TokenRefused("this is not App Engine, and MASSMIGRATION_TASK_URL is not set, so tasks are not accepted")


def get_retry_count(headers: Mapping[str, str]) -> int:
    """Return how often the queue has delivered this task before; 0 if it does not say.

    Ask this only of a caller that ``check_task_caller`` has accepted.
    """
    name = "X-CloudTasks-TaskRetryCount" if conf.task_url else "X-AppEngine-TaskRetryCount"
    found = re.fullmatch(r"[0-9]{1,9}", headers.get(name, ""))
    return int(found[0]) if found else 0


def get_busy_status() -> int:
    """Return the status that makes the queue deliver a task again without slowing down the others.

    503 from App Engine counts as an error of the platform, and Cloud Tasks slows down the whole queue; 429 does not.
    Over HTTP both do. https://cloud.google.com/tasks/docs/reference/rest/v2/AppEngineHttpRequest
    """
    return 429 if is_app_engine() and not conf.task_url else 503


def check_cron_caller(headers: Mapping[str, str]) -> None:
    """Raise an error, as ``check_task_caller``, unless the cron of App Engine or a token (Cloud Scheduler) calls."""
    if not (is_app_engine() and headers.get("X-Appengine-Cron") == "true"):
        _check_token(headers)


def _check_token(headers: Mapping[str, str]) -> None:
    if not (conf.task_url and conf.task_service_account):
        raise TokenRefused(
            "tokens are verified against MASSMIGRATION_TASK_URL and MASSMIGRATION_TASK_SERVICE_ACCOUNT, and they are "
            "not both set"
        )
    check_token(headers.get("Authorization", ""), audience=conf.task_url, email=conf.task_service_account)


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
