"""DjangaeBackend: on App Engine sites that have djangae, its ``defer()`` puts our tasks on Cloud Tasks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import transaction
from django.urls import NoReverseMatch, resolve, reverse
from django.utils.module_loading import import_string

from massmigration.backends.base import RUN_SHARD, TASKS, BaseBackend, is_worth_redelivery
from massmigration.backends.callers import check_redirect, is_app_engine, is_emulated
from massmigration.backends.cloudqueue import (
    LONGEST_DELAY,
    PATIENCE_SECONDS,
    SHARE_OF_DEADLINE,
    CloudQueue,
    make_task_name,
)
from massmigration.conf import conf
from massmigration.databases.redaction import describe
from massmigration.exceptions import BackendNotInstalled, BackendUnreachable, ConfigurationError

logger = logging.getLogger("massmigration")

PIP_COMMAND: Final = 'pip install "massmigration[djangae]"'
HANDLER: Final = "tasks_deferred_handler"
MIDDLEWARE: Final = (
    "djangae.tasks.middleware.TaskEnvironmentMiddleware",
    "djangae.tasks.middleware.task_environment_middleware",
)
LOGIN_MIDDLEWARE: Final = "django.contrib.auth.middleware.LoginRequiredMiddleware"

DEFER_KEYWORDS: Final = ("_headers", "_instance", "_queue", "_service", "_url", "_version")
"""What a migration may say in ``backend_params["defer_kwargs"]``: where its tasks go."""

OWN_KEYWORDS: Final = (
    "_countdown",
    "_eta",
    "_name",
    "_retry_options",
    "_small_task",
    "_transactional",
    "_using",
    "_wipe_related_caches",
)
"""What only the backend itself may say to ``defer()``."""

DEFAULT_QUEUE: Final = "default"
"""Where djangae puts tasks that name no queue."""


class SetupFault(NamedTuple):
    """Something that djangae's tasks cannot work without, and what to do."""

    text: str
    hint: str


class DjangaeBackend(BaseBackend):
    """Defers the tasks with ``djangae.tasks.deferred.defer``; its handler calls them within a request.

    The queue is the migration's ``queue_name``, else ``MASSMIGRATION_TASK_QUEUE``, else djangae's default. What
    ``backend_params["defer_kwargs"]`` says goes before it, for this migration's tasks.

    Raises:
        BackendNotInstalled: djangae is missing, or is its old release for Python 2.
        ConfigurationError: ``defer_kwargs`` holds what ``defer()`` does not know, or what is not for migrations to say.
    """

    def __init__(self, queue_name: str | None, params: dict[str, Any]) -> None:
        require_djangae()
        super().__init__(queue_name, params)
        self._defer_kwargs = check_defer_kwargs(params.get("defer_kwargs", {}))

    @property
    def slice_seconds(self) -> float:
        """Most of the request's deadline, so that a slow batch ends before it, too."""
        return conf.task_deadline * SHARE_OF_DEADLINE

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Defer the task once the transaction that is open on ``db_alias``, if one is, has been committed.

        Raises:
            BackendUnreachable: Cloud Tasks did not take it.
            ConfigurationError: djangae's tasks are not set up, or this is neither App Engine nor its emulator.
        """
        check_setup()
        options = self._route(task) | {"_small_task": True, "_using": db_alias, "_transactional": False}
        if name:
            options["_name"] = make_task_name(name)
        # Not left to defer(), which would wait as well, but what it raises after the commit is not in our words.
        send = partial(_send, task, json.dumps(arguments), options, timedelta(seconds=delay_seconds))
        transaction.on_commit(send, using=db_alias)

    def check(self) -> list[checks.CheckMessage]:
        """Say what is missing (E012), and what hinders tasks from arriving (W006, W008)."""
        messages: list[checks.CheckMessage] = [
            checks.Error(f"DjangaeBackend cannot be used. {fault.text}", hint=fault.hint, id="massmigration.E012")
            for fault in find_setup_faults()
        ]
        messages += [checks.Warning(text, hint=hint, id="massmigration.W008") for text, hint in find_wrappings()]
        path = get_handler_path()
        return messages if path is None else [*messages, *check_redirect(path)]

    def check_launch(self, db_alias: str, *, origin: str) -> None:
        """Refuse what djangae would answer with a traceback, and a queue that is known to deliver nothing."""
        check_setup()
        if stop := _get_queue(self._defer_kwargs.get("_queue") or self.queue_name).find_stop():
            raise ConfigurationError(stop)

    def _route(self, task: str) -> dict[str, Any]:
        """Return where the task goes: a shard stays with the version that began it; a watch survives a deploy."""
        here = os.environ.get("GAE_SERVICE")
        route: dict[str, Any] = {"_queue": self.queue_name, "_service": here} | self._defer_kwargs
        if task == RUN_SHARD and route["_service"] == here:
            return {"_version": os.environ.get("GAE_VERSION")} | route
        if task != RUN_SHARD:
            return {name: value for name, value in route.items() if name != "_instance"} | {"_version": "default"}
        return {"_version": "default"} | route  # another service has its own versions


def run_task(task: str, arguments: str) -> None:
    """Call a task function; this is what is deferred, and what djangae's handler calls.

    The queue delivers it again after any exception but ``PermanentTaskFailure``, which must never leave here.

    A task that is none of ``TASKS`` is logged and dropped.
    """
    if task not in TASKS:
        logger.error("A task asks for %r, which is not a task of massmigration. It was dropped.", task)
        return
    try:
        import_string(task)(**json.loads(arguments))
    except Exception as error:
        if not is_worth_redelivery(error):
            raise
        logger.warning("%s will be delivered again: %s", task, error)
        # The handler answers 408 to this one, instead of the traceback that error trackers make an incident of.
        raise import_module("djangae.tasks.deferred").SingularTaskFailure(describe(error)) from error


def require_djangae() -> None:
    """Raise BackendNotInstalled unless djangae 2 is there."""
    try:
        import_module("djangae.tasks")
    except (ImportError, SyntaxError) as error:
        try:
            fact = f"djangae {version('djangae')} does not work ({error}): its version 2 does"
        except PackageNotFoundError:
            fact = "djangae is not installed"
        raise BackendNotInstalled(f"DjangaeBackend cannot be used, as {fact}. Type: {PIP_COMMAND}") from error


def check_defer_kwargs(value: Any) -> dict[str, Any]:
    """Return the ``defer_kwargs`` of a migration, or raise ConfigurationError if they cannot be passed on."""
    known = ", ".join(DEFER_KEYWORDS)
    if not isinstance(value, dict):
        raise ConfigurationError(
            f'backend_params["defer_kwargs"] is {value!r}, but it has to be a dictionary. Use these keys: {known}.'
        )
    for name in value:
        if name in OWN_KEYWORDS:
            raise ConfigurationError(
                f'backend_params["defer_kwargs"] has {name!r}, which DjangaeBackend decides itself. Take it out.'
            )
        if name not in DEFER_KEYWORDS:
            raise ConfigurationError(
                f'backend_params["defer_kwargs"] has {name!r}, which defer() does not know. Use these: {known}.'
            )
    return dict(value)


def find_setup_faults() -> Iterator[SetupFault]:
    """Yield what is missing for djangae's tasks to work, and for them to be safe."""
    if not is_app_engine() and not is_emulated():
        yield SetupFault(
            "This is not App Engine, so anybody who reaches the site can have djangae's handler run code of theirs: it "
            "unpickles what comes with the header X-AppEngine-TaskName, which only App Engine takes off requests from "
            "outside.",
            "Use massmigration.backends.cloudtasks.CloudTasksBackend, and take the URLs of djangae.tasks out. For "
            "development, set TASKS_EMULATOR_HOST.",
        )
    for app in ("djangae", "djangae.tasks"):
        if not apps.is_installed(app):
            yield SetupFault(f"{app} is not in INSTALLED_APPS.", f'Add "{app}" to INSTALLED_APPS.')
    if not set(MIDDLEWARE) & set(settings.MIDDLEWARE):
        yield SetupFault("The middleware of djangae's tasks is missing.", f'Add "{MIDDLEWARE[0]}" to MIDDLEWARE.')
    if get_handler_path() is None:
        hint = 'Add path("tasks/", include("djangae.tasks.urls")) to your urlpatterns.'
        yield SetupFault("The URL that djangae's tasks are delivered to is missing.", hint)
    if not _get_location():
        hint = 'Set it to the region of your queues, such as "europe-west1".'
        yield SetupFault("CLOUD_TASKS_LOCATION is not set.", hint)


def find_wrappings() -> Iterator[SetupFault]:
    """Yield what the site puts around all views that breaks djangae's handler of tasks."""
    path = get_handler_path()
    if path is None:
        return
    view = resolve(path, urlconf=settings.ROOT_URLCONF).func
    decorate = "from djangae.tasks.handlers import deferred_handler, and call {} in the module of ROOT_URLCONF."
    for alias, database in settings.DATABASES.items():
        if database.get("ATOMIC_REQUESTS") and alias not in getattr(view, "_non_atomic_requests", ()):
            text = f"ATOMIC_REQUESTS of database '{alias}' makes one transaction of all batches of a slice."
            hint = f'django.db.transaction.non_atomic_requests(using="{alias}")(deferred_handler)'
            yield SetupFault(text, decorate.format(hint))
    if LOGIN_MIDDLEWARE in settings.MIDDLEWARE and getattr(view, "login_required", True):
        text = "LoginRequiredMiddleware sends each task to the login page, so none is worked on."
        hint = "django.contrib.auth.decorators.login_not_required(deferred_handler)"
        yield SetupFault(text, decorate.format(hint))


def get_handler_path() -> str | None:
    """Return the path that djangae's tasks are delivered to, or None if the site's URLs do not have it."""
    try:
        return reverse(HANDLER, urlconf=settings.ROOT_URLCONF)
    except NoReverseMatch:
        return None


def check_setup() -> None:
    """Raise ConfigurationError if djangae's tasks are not set up, or not safe here."""
    for fault in find_setup_faults():
        raise ConfigurationError(f"DjangaeBackend cannot be used. {fault.text} {fault.hint}")


def _get_location() -> str:
    return getattr(settings, "CLOUD_TASKS_LOCATION", None) or ""


def _send(task: str, arguments: str, options: dict[str, Any], delay: timedelta) -> None:
    from google.api_core import exceptions, retry
    from google.auth.exceptions import GoogleAuthError

    if delay > timedelta(0):
        # Not _countdown: where USE_TZ is off, defer() takes the local time for UTC.
        options["_eta"] = datetime.now(timezone.utc) + min(delay, LONGEST_DELAY)
    transient = (exceptions.ServiceUnavailable, exceptions.DeadlineExceeded, exceptions.InternalServerError)
    repeat = retry.Retry(retry.if_exception_type(*transient), initial=0.1, maximum=2, timeout=PATIENCE_SECONDS)
    try:
        repeat(import_module("djangae.tasks.deferred").defer)(run_task, task, arguments, **options)
    except exceptions.AlreadyExists:
        logger.debug("%s is on the queue already.", task)
    except (exceptions.GoogleAPIError, GoogleAuthError, OSError) as error:
        raise BackendUnreachable(_get_queue(options["_queue"]).explain(error)) from error


def _get_queue(name: str | None) -> CloudQueue:
    project = import_module("djangae.tasks").cloud_tasks_project()
    return CloudQueue(project, _get_location(), name or DEFAULT_QUEUE)
