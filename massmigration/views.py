"""What queues and cron call over HTTP: to run a task from a signed body, and to recover what is stalled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from django.contrib.auth.decorators import login_not_required
from django.core.signing import BadSignature
from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.utils.log import log_response
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from massmigration import api
from massmigration.backends import payloads
from massmigration.backends.base import is_worth_redelivery
from massmigration.backends.callers import check_cron_caller, check_task_caller, get_busy_status, get_retry_count
from massmigration.backends.certificates import CertificatesUnreachable
from massmigration.backends.oidc import TokenRefused
from massmigration.databases.aliases import check_alias, get_aliases
from massmigration.databases.redaction import describe, get_message
from massmigration.databases.registry import is_transient
from massmigration.exceptions import DatabaseNotAllowed, IllegalMove, MassMigrationError

logger: Final = logging.getLogger("massmigration")

RETRY_AFTER_SECONDS: Final = 10
ACTOR: Final = "cron"

MAX_TRIES: Final = 10
"""How often a task that can never be served is refused before it is dropped; it would come back for 31 days."""

View = Callable[[HttpRequest], HttpResponse]


class Refused(Exception):
    """The request is not served.

    Args:
        status: Of the answer.
        reason: For the log; the caller is not told.
        is_final: Whether the same request can never be served.
    """

    def __init__(self, status: int, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.is_final = is_final


def for_machines(*methods: str) -> Callable[[View], View]:
    """Make a view for machines, which have no cookies: no CSRF token, no login, no transaction around it."""

    def decorate(view: View) -> View:
        for alias in connections:  # each batch has to commit by itself, whatever ATOMIC_REQUESTS says
            view = transaction.non_atomic_requests(using=alias)(view)
        decorated: View = csrf_exempt(login_not_required(require_http_methods(methods)(view)))
        return decorated

    return decorate


@for_machines("POST")
def run_task(request: HttpRequest) -> HttpResponse:
    """Call the task that the body asks for; the answers are a table in ``docs/cloud-tasks.md``."""
    try:
        _check_caller(request, check_task_caller)
        task = _read_task(request)
    except Refused as refusal:
        # A forged count does no harm: the request is refused anyway.
        if refusal.is_final and get_retry_count(request.headers) >= MAX_TRIES:
            return _drop(request, str(refusal))
        return _answer(request, refusal.status, str(refusal))
    try:
        import_string(task.name)(**task.arguments)
    except Exception as error:
        if not is_worth_redelivery(error):
            raise  # Django logs it once and answers 500
        return _answer(request, get_busy_status(), f"{task.name} is to be delivered again: {describe(error)}")
    return HttpResponse("done", content_type="text/plain")


@for_machines("GET", "POST")
def recover(request: HttpRequest) -> HttpResponse:
    """Recover all stalled migrations on all databases, as ``massmigration recover`` does, and answer in JSON."""
    try:
        _check_caller(request, check_cron_caller)
    except Refused as refusal:
        return _answer(request, refusal.status, str(refusal))
    recovered: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for alias in get_aliases():
        try:
            stalled = [row.key for row in api.get_all_progress([alias]) if row.stalled]
        except Exception as error:
            if not (isinstance(error, DatabaseError) or is_transient(error)):
                raise
            failed.append({"database": alias, "error": describe(error)})
            continue
        for key in stalled:
            _recover_one(key, alias, recovered, failed)
    response = JsonResponse({"recovered": recovered, "failed": failed}, status=503 if failed else 200)
    if failed:
        reasons = "; ".join(row["error"] for row in failed)
        log_response("Not all could be recovered: %s", reasons, response=response, logger=logger, level="warning")
    return response


def _recover_one(key: str, db_alias: str, recovered: list[dict[str, str]], failed: list[dict[str, str]]) -> None:
    try:
        api.recover_migration(key, db_alias, actor=ACTOR)
    except IllegalMove:  # another process was faster
        return
    except Exception as error:
        if not (isinstance(error, (MassMigrationError, DatabaseError)) or is_transient(error)):
            raise
        failed.append({"key": key, "database": db_alias, "error": get_message(error)})
        return
    recovered.append({"key": key, "database": db_alias})


def _check_caller(request: HttpRequest, check: Callable[[Any], None]) -> None:
    try:
        check(request.headers)
    except TokenRefused as error:
        raise Refused(403, str(error)) from error
    except CertificatesUnreachable as error:
        raise Refused(503, str(error)) from error


def _read_task(request: HttpRequest) -> payloads.Task:
    """Return the task that the body asks for, without reading more than the largest task has."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdecimal() and int(length[:20]) > payloads.MAX_BYTES:
        raise Refused(413, f"the body has {length[:20]} bytes", is_final=True)
    if request.content_type != payloads.CONTENT_TYPE:
        raise Refused(415, f"the body is {request.content_type!r}", is_final=True)
    try:
        body = request.read(payloads.MAX_BYTES + 1)
        if len(body) > payloads.MAX_BYTES:
            raise Refused(413, f"the body has more than {payloads.MAX_BYTES} bytes", is_final=True)
        task = payloads.load(body)
        check_alias(task.arguments["db_alias"])
    except BadSignature as error:
        raise Refused(403, str(error), is_final=True) from error
    except (payloads.UnknownTask, DatabaseNotAllowed) as error:
        raise Refused(400, str(error), is_final=True) from error
    except UnreadablePostError as error:
        raise Refused(400, str(error)) from error
    return task


def _drop(request: HttpRequest, reason: str) -> HttpResponse:
    """Return the answer after which a task does not come back, and log one error."""
    logger.error(
        "%s: a task was refused %s times, and is dropped: %s. If SECRET_KEY was replaced, keep the old one in "
        "SECRET_KEY_FALLBACKS while tasks wait. A run that has lost its tasks continues with 'massmigration recover'.",
        request.path,
        MAX_TRIES,
        reason,
    )
    return HttpResponse("dropped", content_type="text/plain")


def _answer(request: HttpRequest, status: int, reason: str) -> HttpResponse:
    """Return an answer that tells the caller no more than its status, and log the reason as a warning."""
    response = HttpResponse(status=status, content_type="text/plain")
    response.write(response.reason_phrase)
    if status in (429, 503):
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    log_response("%s %s: %s", request.path, status, reason, response=response, logger=logger, level="warning")
    return response
