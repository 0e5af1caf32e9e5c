"""CloudTasksBackend: Google Cloud Tasks calls our own URL, on App Engine or on any site that it reaches over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import transaction
from django.urls import NoReverseMatch, reverse

from massmigration.backends import payloads
from massmigration.backends.base import WATCH, BaseBackend
from massmigration.backends.callers import check_redirect, check_url, is_emulated
from massmigration.backends.cloudqueue import LONGEST_DELAY, SHARE_OF_DEADLINE, CloudQueue, make_task_name
from massmigration.conf import conf
from massmigration.exceptions import BackendNotInstalled, ConfigurationError

DEFAULT_QUEUE: Final = "default"
SHORTEST_DEADLINE: Final = 15.0
LONGEST_HTTP_DEADLINE: Final = 30 * 60.0
LONGEST_APP_ENGINE_DEADLINE: Final = 24 * 60 * 60.0
# https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues.tasks, "dispatchDeadline"


class CloudTasksBackend(BaseBackend):
    """Puts tasks on a queue of Cloud Tasks, which delivers them to ``massmigration.urls``.

    With ``MASSMIGRATION_TASK_URL`` they come as plain HTTP requests with a token, without it through App Engine. Of
    ``backend_params`` it reads ``dispatch_deadline`` (seconds, overrides ``MASSMIGRATION_TASK_DEADLINE``), and on App
    Engine ``service`` and ``version``; it ignores others.

    Raises:
        BackendNotInstalled: google-cloud-tasks is missing.
    """

    def __init__(self, queue_name: str | None, params: dict[str, Any]) -> None:
        super().__init__(queue_name or DEFAULT_QUEUE, params)
        _check_library()

    @property
    def queue(self) -> CloudQueue:
        """The queue that tasks are put on."""
        return CloudQueue(conf.task_project, conf.task_location, self.queue_name or DEFAULT_QUEUE)

    @property
    def deadline(self) -> float:
        """After how many seconds Cloud Tasks gives up a request, within what it allows."""
        seconds = self.params.get("dispatch_deadline", conf.task_deadline)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise ConfigurationError(
                f"'dispatch_deadline' in backend_params is {seconds!r}, but it has to be a number of seconds. Correct "
                "it, or take it out."
            )
        longest = LONGEST_HTTP_DEADLINE if conf.task_url else LONGEST_APP_ENGINE_DEADLINE
        return min(max(seconds, SHORTEST_DEADLINE), longest)

    @property
    def slice_seconds(self) -> float:
        """Most of the deadline, so that a slow batch ends before it, too."""
        return self.deadline * SHARE_OF_DEADLINE

    def check(self) -> list[checks.CheckMessage]:
        """Say what is missing (E010, E011), and what hinders tasks from arriving (W004 to W006)."""
        until_then = "Until then migrations on CloudTasksBackend cannot be started."
        messages: list[checks.CheckMessage] = []
        with suppress(ConfigurationError):  # check_settings reports it
            for fault in find_missing_settings():
                messages.append(checks.Error(fault, hint=until_then, id="massmigration.E010"))
            try:
                path = get_task_path()
            except ConfigurationError as error:
                messages.append(checks.Error(str(error), hint=until_then, id="massmigration.E011"))
            else:
                messages += check_url(conf.task_url) if conf.task_url else check_redirect(path)
        return messages

    def check_launch(self, db_alias: str, *, origin: str) -> None:
        """Refuse a launch while a setting or our URL is missing, or the queue is known to deliver nothing."""
        _check_settings()
        if stop := self.queue.find_stop():
            raise ConfigurationError(stop)

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Add a task to the queue, once the transaction that is open on ``db_alias``, if one is, has been committed.

        Raises:
            ConfigurationError: A setting or our URL is missing.
            BackendUnreachable: The queue did not take it; within a transaction, its commit raises this.
        """
        _check_settings()
        message = self._make_message(task, arguments, timedelta(seconds=delay_seconds), name)
        transaction.on_commit(partial(self.queue.add, message), using=db_alias)

    def _make_message(self, task: str, arguments: dict[str, Any], delay: timedelta, name: str) -> dict[str, Any]:
        """Return the task as the API has it (https://cloud.google.com/tasks/docs/reference/rest/v2)."""
        message: dict[str, Any] = {"dispatch_deadline": timedelta(seconds=self.deadline)}
        if name:
            message["name"] = f"{self.queue.path}/tasks/{make_task_name(name)}"
        if delay > timedelta(0):
            message["schedule_time"] = datetime.now(timezone.utc) + min(delay, LONGEST_DELAY)
        request: dict[str, Any] = {
            "http_method": "POST",
            "headers": {"Content-Type": payloads.CONTENT_TYPE},
            "body": payloads.dump(task, arguments),
        }
        if conf.task_url:
            where: dict[str, Any] = {"url": conf.task_url + get_task_path()}
            if conf.task_service_account:
                where["oidc_token"] = {
                    "service_account_email": conf.task_service_account,
                    "audience": conf.task_url,
                }
            message["http_request"] = request | where
        else:
            where = {"relative_uri": get_task_path(), "app_engine_routing": self._route(task)}
            message["app_engine_http_request"] = request | where
        return message

    def _route(self, task: str) -> dict[str, str]:
        """Return the service and version of App Engine; without a version it is the one that then serves by default.

        A shard stays with the version of the code that began it; a watch survives a deploy.
        """
        here = os.environ.get("GAE_SERVICE", "")
        service = self.params.get("service") or here
        version = self.params.get("version") or (os.environ.get("GAE_VERSION", "") if service == here else "")
        routing = {"service": service, "version": "" if task == WATCH else version}
        return {part: value for part, value in routing.items() if value}


def _check_settings() -> None:
    for fault in find_missing_settings():
        raise ConfigurationError(fault)
    get_task_path()


def get_task_path() -> str:
    """Return the path of our handler on this site.

    Raises:
        ConfigurationError: The site's URLs do not have it.
    """
    try:
        return reverse("massmigration:run_task", urlconf=settings.ROOT_URLCONF)
    except NoReverseMatch as error:
        raise ConfigurationError(
            "CloudTasksBackend has tasks delivered to this site, but its URLs do not include ours. "
            'Add path("massmigration/", include("massmigration.urls")) to the urlpatterns of ROOT_URLCONF.'
        ) from error


def find_missing_settings() -> Iterator[str]:
    """Yield a sentence for each setting without which no task can be sent."""
    if not conf.task_project:
        yield (
            "CloudTasksBackend does not know the project of its queue. Set MASSMIGRATION_TASK_PROJECT, or "
            "GOOGLE_CLOUD_PROJECT in the environment, to the project's ID."
        )
    if not conf.task_location:
        yield (
            "CloudTasksBackend does not know where its queue is. Set MASSMIGRATION_TASK_LOCATION to its region, such "
            "as 'europe-west1'."
        )
    if conf.task_url and not conf.task_service_account and not is_emulated():
        yield (
            "MASSMIGRATION_TASK_URL is set, but MASSMIGRATION_TASK_SERVICE_ACCOUNT is not, so no caller could prove "
            "to be Cloud Tasks. Set it to the e-mail address of a service account of the project."
        )


def _check_library() -> None:
    try:
        is_installed = find_spec("google.cloud.tasks_v2") is not None
    except ModuleNotFoundError:  # not even "google"
        is_installed = False
    if not is_installed:
        raise BackendNotInstalled(
            "CloudTasksBackend needs google-cloud-tasks, which is not installed. Type: "
            "pip install 'massmigration[cloudtasks]'"
        )
