"""A queue of Google Cloud Tasks: adds tasks to it, and says in one sentence why it could not."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from massmigration.backends.callers import get_emulator_host
from massmigration.conf import conf
from massmigration.exceptions import BackendUnreachable

if TYPE_CHECKING:
    from google.cloud.tasks_v2 import CloudTasksClient

ATTEMPT_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 15.0
"""For how long a call is retried while Cloud Tasks does not answer."""

SHARE_OF_DEADLINE: Final = 0.75
"""The share of a request's time that a slice may take; the rest is for the last batch and the next task."""

LONGEST_DELAY: Final = timedelta(days=30) - timedelta(minutes=1)
"""Cloud Tasks plans 30 days ahead and no further (https://cloud.google.com/tasks/docs/quotas)."""

ON_APP_ENGINE: Final = "roles/appengine.appViewer (tasks with App Engine routing ask for appengine.applications.get)"
OVER_HTTP: Final = "roles/iam.serviceAccountUser on MASSMIGRATION_TASK_SERVICE_ACCOUNT"
"""What an account needs besides ``roles/cloudtasks.enqueuer``.
https://cloud.google.com/tasks/docs/reference/rest/v2/AppEngineHttpRequest"""

_clients: dict[tuple[int, str], CloudTasksClient] = {}


class CloudQueue(NamedTuple):
    """A queue, with the ID of its project and its region."""

    project: str
    location: str
    name: str

    @property
    def path(self) -> str:
        """The queue's full name, as Cloud Tasks wants it."""
        return f"projects/{self.project}/locations/{self.location}/queues/{self.name}"

    def add(self, task: dict[str, Any]) -> None:
        """Add a task, as the API has it; one whose name the queue knows already is ignored.

        Raises:
            BackendUnreachable: The queue did not take it, even after retries where those could help.
        """
        from google.api_core import exceptions, retry, timeout
        from google.auth.exceptions import GoogleAuthError

        is_transient = retry.if_exception_type(
            exceptions.ServiceUnavailable,
            exceptions.DeadlineExceeded,
            exceptions.InternalServerError,
            exceptions.Aborted,
            exceptions.ResourceExhausted,
        )
        repeat = retry.Retry(is_transient, initial=0.1, maximum=2.0, multiplier=2.0, timeout=PATIENCE_SECONDS)
        each = timeout.ConstantTimeout(ATTEMPT_SECONDS)
        try:
            get_client().create_task(parent=self.path, task=task, retry=repeat, timeout=each)
        except exceptions.AlreadyExists:
            return
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise BackendUnreachable(self.explain(error)) from error

    def find_stop(self) -> str:
        """Return a sentence if the queue is paused or disabled; an empty string if it is not, or if this is unknown.

        That takes the permission ``cloudtasks.queues.get``, which ``roles/cloudtasks.viewer`` has.
        """
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.tasks_v2 import Queue

        try:
            state = get_client().get_queue(name=self.path, retry=None, timeout=ATTEMPT_SECONDS).state
        except (exceptions.GoogleAPIError, GoogleAuthError):
            return ""
        if state == Queue.State.PAUSED:
            return (
                f"The queue '{self.path}' is paused, so it delivers nothing. Resume it with 'gcloud tasks queues "
                f"resume {self.name} --location={self.location} --project={self.project}'."
            )
        if state == Queue.State.DISABLED:
            return (
                f"The queue '{self.path}' is disabled, because a queue.yaml was deployed that does not name it. Name "
                "it in queue.yaml and deploy that again."
            )
        return ""

    def explain(self, error: BaseException) -> str:
        """Return one sentence that says what to do after an error of google-cloud-tasks."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        if isinstance(error, exceptions.RetryError) and error.cause:
            error = error.cause
        if isinstance(error, exceptions.FailedPrecondition) and (stop := self.find_stop()):
            return stop
        sentences = (
            (
                # Cloud Tasks says "Queue does not exist." as a failed precondition.
                (exceptions.NotFound, exceptions.FailedPrecondition),
                "Cloud Tasks has no queue '{path}' that takes tasks: {said}. Make it with 'gcloud tasks queues create "
                "{queue.name} --location={queue.location} --project={queue.project}'.",
            ),
            (
                (exceptions.Forbidden, exceptions.Unauthorized),
                "This site may not add tasks to the queue '{path}': {said}. Enable cloudtasks.googleapis.com in the "
                "project, and give the account that the site runs as the role roles/cloudtasks.enqueuer and {further}.",
            ),
            (
                (exceptions.InvalidArgument,),
                "Cloud Tasks refuses the task for the queue '{path}': {said}. Correct the settings that begin "
                "with MASSMIGRATION_TASK, or the migration's queue_name and backend_params.",
            ),
            (
                (GoogleAuthError,),
                "Google does not know who this site is: {said}. Elsewhere than on Google's platforms, set "
                "GOOGLE_APPLICATION_CREDENTIALS, or type 'gcloud auth application-default login'.",
            ),
        )
        otherwise = "Cloud Tasks does not take tasks for the queue '{path}': {said}. Try again in a moment."
        sentence = next((text for classes, text in sentences if isinstance(error, classes)), otherwise)
        said = " ".join(str(getattr(error, "message", "") or error).split()).rstrip(".")
        further = OVER_HTTP if conf.task_url else ON_APP_ENGINE
        return sentence.format(path=self.path, said=said or type(error).__name__, queue=self, further=further)


def make_task_name(name: str) -> str:
    """Return the name of a task on a queue: hashed, because similar names make a queue slow."""
    return hashlib.sha256(name.encode()).hexdigest()


def get_client() -> CloudTasksClient:
    """Return this process's client, which its threads share; a forked process makes its own.

    ``TASKS_EMULATOR_HOST`` in the environment, ``host:port``, points it at an emulator.
    """
    key = (os.getpid(), get_emulator_host())
    # No lock, which a fork could inherit in a locked state: at worst two threads make a client each, and one is kept.
    return _clients.get(key) or _clients.setdefault(key, _make_client(key[1]))


def _make_client(emulator_host: str) -> CloudTasksClient:
    from google.cloud.tasks_v2 import CloudTasksClient

    if not emulator_host:
        return CloudTasksClient()
    import grpc
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=grpc.insecure_channel(emulator_host)))
