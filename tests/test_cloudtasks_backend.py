"""CloudTasksBackend against the emulator of Cloud Tasks, and a server that answers as Google does in trouble."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
import uuid
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signing import b64_decode
from django.db import transaction

from massmigration import api
from massmigration.backends import cloudqueue, payloads
from massmigration.backends.base import RUN_SHARD, WATCH, get_backend
from massmigration.backends.cloudtasks import CloudTasksBackend
from massmigration.checks import check_backends, check_settings
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import BackendNotInstalled, BackendUnreachable, ConfigurationError
from tests.conftest import ROOT, get_environment, needs_postgres
from tests.faults.support import get_visits, make_cities
from tests.servers import cloudtasks
from tests.servers.googletasks import Google
from tests.servers.processes import get_free_port

if cloudtasks.find_missing():
    pytest.skip(cloudtasks.INSTALL_PACKAGES, allow_module_level=True)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.filterwarnings("ignore:You are using a Python version:FutureWarning"),
]

KEY = "testapp:0001_writes_back"
ACCOUNT = "massmigration@project.iam.gserviceaccount.com"
ARGUMENTS = {"shard_id": "nobody's", "db_alias": "default"}
PATH = "projects/test/locations/europe-west1/queues/default"


class Delivery(NamedTuple):
    """A request that the site got, and what it answered.

    Attributes:
        at: When it came, in seconds.
        path: Where it went.
        queue_header: The name of the queue, as App Engine or an HTTP target is told it.
        body: As it came.
        status: Of the answer.
    """

    at: float
    path: str
    queue_header: str
    body: bytes
    status: int


class Site(ThreadingMixIn, WSGIServer):
    """Serves this process's Django, and notes what it is sent."""

    daemon_threads = True

    class Handler(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.deliveries: list[Delivery] = []
        self.handler = WSGIHandler()
        self.set_app(self.serve)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Hand a request to Django."""
        at = time.time()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        response = self.handler({**environ, "wsgi.input": io.BytesIO(body)}, start_response)
        header = environ.get("HTTP_X_APPENGINE_QUEUENAME", "") or environ.get("HTTP_X_CLOUDTASKS_QUEUENAME", "")
        self.deliveries.append(Delivery(at, environ["PATH_INFO"], header, body, response.status_code))
        return response


@pytest.fixture(scope="module")
def site():
    site = Site()
    yield site
    site.shutdown()
    site.server_close()


@pytest.fixture(scope="module")
def emulator(site):
    server = cloudtasks.launch(site.server_address[1])
    server.wait(cloudtasks.is_ready)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def configured(settings, monkeypatch):
    """Let the site be configured for Cloud Tasks, with nothing of the platform around it."""
    for name in ("GAE_ENV", "GAE_SERVICE", "GAE_VERSION", "K_SERVICE", "TASKS_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}
    settings.MASSMIGRATION_BACKEND = "massmigration.backends.cloudtasks.CloudTasksBackend"
    settings.MASSMIGRATION_TASK_PROJECT = "test"
    settings.MASSMIGRATION_TASK_LOCATION = cloudtasks.LOCATION
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 0


@pytest.fixture
def queue(emulator, site, settings, monkeypatch):
    """Make a queue that no other test knows, the one of the settings."""
    monkeypatch.setenv("TASKS_EMULATOR_HOST", emulator.address)
    queue = Queue(emulator.address)
    settings.MASSMIGRATION_TASK_QUEUE = queue.name
    site.deliveries.clear()
    yield queue
    queue.delete()


class Queue:
    """A queue of the emulator.

    Args:
        address: Of the emulator.
    """

    def __init__(self, address: str) -> None:
        self.client = cloudtasks.get_client(address)
        self.name = f"test-{uuid.uuid4().hex}"
        self.path = cloudtasks.get_queue_path(self.name)
        self.client.create_queue(parent=self.path.rpartition("/queues/")[0], queue={"name": self.path})

    def pause(self) -> None:
        """Deliver nothing from now on."""
        self.client.pause_queue(name=self.path)
        time.sleep(0.3)  # the emulator looks at a queue's state once a round

    def resume(self) -> None:
        """Deliver again."""
        self.client.resume_queue(name=self.path)

    def list(self) -> list[Any]:
        """Return the tasks that wait."""
        return list(self.client.list_tasks(parent=self.path))

    def delete(self) -> None:
        """Delete the queue with all its tasks."""
        self.client.delete_queue(name=self.path)
        self.client.transport.close()


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make(params: dict[str, Any] | None = None) -> CloudTasksBackend:
    migration = BaseMigration("testapp", "0001_writes_back")
    migration.backend_params = params or {}
    backend = get_backend(migration)
    assert isinstance(backend, CloudTasksBackend)
    return backend


def enqueue(task: str = RUN_SHARD, params: dict[str, Any] | None = None, **options: Any) -> None:
    arguments = ARGUMENTS if task == RUN_SHARD else {"key": KEY, "db_alias": "default", "attempt": uuid.UUID(int=0).hex}
    make(params).enqueue(task, arguments, **{"db_alias": "default"} | options)


def run_code(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with CloudTasksBackend in its settings."""
    command = [sys.executable, "-c", "import django; django.setup()\n" + code]
    variables = get_environment({"DJANGO_SETTINGS_MODULE": "tests.cloudtasks_settings", **environment})
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("db_alias", ["default", pytest.param("postgres", marks=needs_postgres)])
@pytest.mark.parametrize("is_http_target", [False, True], ids=["app engine", "http target"])
def test_a_migration_runs_to_its_end(is_http_target, db_alias, queue, site, settings):
    if is_http_target:
        settings.MASSMIGRATION_TASK_URL = f"http://127.0.0.1:{site.server_address[1]}"
    make_cities(db_alias, 200)
    api.start_migration(KEY, db_alias, actor="tester")
    ended = api.wait_for_migration(KEY, db_alias, timeout=60)
    assert ended.status == "applied", ended.error
    assert get_visits(db_alias) == {1}
    assert {delivery.status for delivery in site.deliveries} == {200}
    assert {delivery.path for delivery in site.deliveries} == {"/massmigration/run/"}
    assert {delivery.queue_header for delivery in site.deliveries} == {queue.path}


def test_a_task_is_delivered_with_its_arguments(queue, site):
    enqueue()
    wait_for(lambda: site.deliveries)
    assert payloads.load(site.deliveries[0].body) == (RUN_SHARD, ARGUMENTS)


def test_a_delay_is_kept(queue, site):
    begun = time.time()
    enqueue(delay_seconds=1.5)
    enqueue()
    wait_for(lambda: len(site.deliveries) == 2)
    first, second = (delivery.at - begun for delivery in site.deliveries)
    assert first < 1.5 <= second


def test_a_task_waits_for_the_commit(queue, site):
    with transaction.atomic():
        enqueue()
        time.sleep(0.5)
        assert queue.list() == site.deliveries == []
    wait_for(lambda: site.deliveries)


def test_a_transaction_that_is_rolled_back_sends_nothing(queue, site):
    with transaction.atomic():
        enqueue()
        transaction.set_rollback(True)
    time.sleep(0.5)
    assert queue.list() == site.deliveries == []


@needs_postgres
def test_a_transaction_on_another_database_holds_nothing_up(queue, site):
    with transaction.atomic(using="postgres"):
        enqueue()
        wait_for(lambda: site.deliveries)


def test_what_a_task_on_app_engine_says(queue, monkeypatch):
    queue.pause()
    monkeypatch.setenv("GAE_SERVICE", "jobs")
    monkeypatch.setenv("GAE_VERSION", "v7")
    enqueue(name="the same piece of work")
    (task,) = queue.list()
    request = task.app_engine_http_request
    assert not task.http_request.url
    assert request.relative_uri == "/massmigration/run/"
    assert request.http_method.name == "POST"
    assert request.headers["Content-Type"] == payloads.CONTENT_TYPE
    assert (request.app_engine_routing.service, request.app_engine_routing.version) == ("jobs", "v7")
    assert task.dispatch_deadline.total_seconds() == 600
    assert task.name == f"{queue.path}/tasks/{hashlib.sha256(b'the same piece of work').hexdigest()}"


@pytest.mark.parametrize(
    ("task", "params", "service", "version"),
    [
        (WATCH, {}, "jobs", ""),
        (RUN_SHARD, {"service": "jobs"}, "jobs", "v7"),
        (RUN_SHARD, {"service": "other"}, "other", ""),
        (RUN_SHARD, {"service": "other", "version": "v1"}, "other", "v1"),
        (RUN_SHARD, {"version": "v1"}, "jobs", "v1"),
        (WATCH, {"version": "v1"}, "jobs", ""),
        (RUN_SHARD, {"defer_kwargs": {"_service": "of another backend"}}, "jobs", "v7"),
    ],
)
def test_where_a_task_goes_on_app_engine(task, params, service, version, queue, monkeypatch):
    queue.pause()
    monkeypatch.setenv("GAE_SERVICE", "jobs")
    monkeypatch.setenv("GAE_VERSION", "v7")
    enqueue(task, params)
    (found,) = queue.list()
    routing = found.app_engine_http_request.app_engine_routing
    assert (routing.service, routing.version) == (service, version)


def test_off_app_engine_its_default_service_is_meant(queue):
    queue.pause()
    enqueue()
    (task,) = queue.list()
    routing = task.app_engine_http_request.app_engine_routing
    assert (routing.service, routing.version) == ("", "")


def test_what_a_task_for_an_http_target_says(queue, settings, monkeypatch):
    queue.pause()
    monkeypatch.setenv("GAE_VERSION", "v7")
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com/"
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ACCOUNT
    settings.MASSMIGRATION_TASK_DEADLINE = 24 * 60 * 60
    enqueue()
    (task,) = queue.list()
    request = task.http_request
    assert not task.app_engine_http_request.relative_uri
    assert request.url == "https://jobs.example.com/massmigration/run/"
    assert request.http_method.name == "POST"
    assert request.oidc_token.service_account_email == ACCOUNT
    assert request.oidc_token.audience == "https://jobs.example.com"
    assert task.dispatch_deadline.total_seconds() == 30 * 60


def test_cloud_tasks_plans_thirty_days_ahead_and_no_further(queue):
    queue.pause()
    enqueue(delay_seconds=10_000_000)
    (task,) = queue.list()
    days = (task.schedule_time.timestamp() - time.time()) / (24 * 60 * 60)
    assert 29.9 < days < 30


@pytest.mark.parametrize(
    ("setting", "params", "url", "deadline"),
    [
        (600, {}, "", 600),
        (600, {"dispatch_deadline": 900}, "", 900),
        (600, {"dispatch_deadline": 1}, "", 15),
        (600, {"dispatch_deadline": 1_000_000}, "", 24 * 60 * 60),
        (3600, {}, "https://jobs.example.com", 30 * 60),
        (15, {}, "https://jobs.example.com", 15),
    ],
)
def test_slices_end_well_before_a_deadline_that_cloud_tasks_allows(setting, params, url, deadline, settings):
    settings.MASSMIGRATION_TASK_DEADLINE = setting
    settings.MASSMIGRATION_TASK_URL = url
    backend = make(params)
    assert backend.deadline == deadline
    assert backend.slice_seconds == deadline * 0.75


@pytest.mark.parametrize("value", ["600", None, True, [600]])
def test_a_deadline_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"'dispatch_deadline' in backend_params is .* number of seconds"):
        _ = make({"dispatch_deadline": value}).deadline


def test_the_queue_of_the_migration_goes_before_the_setting(settings):
    migration = BaseMigration("testapp", "0001_writes_back")
    assert get_backend(migration).queue_name == "default"
    settings.MASSMIGRATION_TASK_QUEUE = "of-the-settings"
    assert get_backend(migration).queue_name == "of-the-settings"
    migration.queue_name = "its-own"
    assert get_backend(migration).queue_name == "its-own"


def test_a_fork_makes_a_client_of_its_own(queue, site):
    code = (
        "import os\n"
        "from massmigration.backends.cloudtasks import CloudTasksBackend\n"
        "from massmigration.backends.cloudqueue import get_client\n"
        "def send():\n"
        "    backend = CloudTasksBackend(os.environ['QUEUE'], {})\n"
        f"    backend.enqueue({RUN_SHARD!r}, {ARGUMENTS!r}, db_alias='default')\n"
        "    return id(get_client())\n"
        "first = send()\n"
        "assert first == send(), 'one client for all calls'\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os._exit(0 if send() != first else 3)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "send()\n"
    )
    done = run_code(code, QUEUE=queue.name)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(site.deliveries) == 4)


def test_a_queue_that_is_not_there(emulator, monkeypatch):
    monkeypatch.setenv("TASKS_EMULATOR_HOST", emulator.address)
    with pytest.raises(BackendUnreachable) as caught:
        enqueue()
    assert str(caught.value) == (
        f"Cloud Tasks has no queue '{PATH}' that takes tasks: Queue {PATH} does not exist. Make it with 'gcloud tasks "
        "queues create default --location=europe-west1 --project=test'."
    )
    assert caught.value.__cause__ is not None


def test_a_start_on_a_queue_that_is_not_there_can_be_retried(emulator, queue, settings):
    settings.MASSMIGRATION_TASK_QUEUE = "not-there"
    make_cities("default", 3)
    with pytest.raises(BackendUnreachable, match="gcloud tasks queues create not-there"):
        api.start_migration(KEY, actor="tester")
    assert (api.get_progress(KEY).status, api.get_progress(KEY).reason) == ("failed", "backend_unreachable")
    settings.MASSMIGRATION_TASK_QUEUE = queue.name
    api.retry_migration(KEY, actor="tester")
    assert api.wait_for_migration(KEY, timeout=60).status == "applied"
    assert get_visits("default") == {1}


def test_a_start_on_a_queue_that_is_paused_is_refused_and_tasks_of_a_run_are_not(queue):
    queue.pause()
    make_cities("default", 3)
    with pytest.raises(ConfigurationError) as caught:
        api.start_migration(KEY, actor="tester")
    assert str(caught.value) == (
        f"The queue '{queue.path}' is paused, so it delivers nothing. Resume it with 'gcloud tasks queues resume "
        f"{queue.name} --location={cloudtasks.LOCATION} --project=test'."
    )
    assert api.get_record(KEY) is None
    enqueue()
    assert len(queue.list()) == 1, "what runs already goes on when the queue does"
    queue.resume()
    api.start_migration(KEY, actor="tester")
    assert api.wait_for_migration(KEY, timeout=60).status == "applied"


def test_a_queue_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(cloudqueue, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setenv("TASKS_EMULATOR_HOST", f"127.0.0.1:{get_free_port()}")
    begun = time.monotonic()
    with pytest.raises(BackendUnreachable, match=rf"for the queue '{PATH}': .*Try again in a moment\.$") as caught:
        enqueue()
    assert time.monotonic() - begun < 5
    assert "\n" not in str(caught.value)


def test_a_site_that_google_does_not_know(monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nope.json")
    with pytest.raises(BackendUnreachable, match=r"Google does not know who this site is: File /nope\.json was not"):
        enqueue()


@pytest.fixture
def google(monkeypatch):
    google = Google()
    monkeypatch.setenv("TASKS_EMULATOR_HOST", f"127.0.0.1:{google.port}")
    yield google
    google.server.stop(None)


@pytest.mark.parametrize(
    ("status", "said", "sentence"),
    [
        ("NOT_FOUND", "Requested entity was not found.", "gcloud tasks queues create default"),
        (
            "FAILED_PRECONDITION",
            "Queue does not exist.",
            "Queue does not exist. Make it with 'gcloud tasks",
        ),
        (
            "PERMISSION_DENIED",
            "The principal lacks it.",
            "may not add tasks to the queue .* roles/cloudtasks.enqueuer and ",
        ),
        (
            "UNAUTHENTICATED",
            "Request had invalid credentials.",
            "roles/appengine.appViewer .*appengine.applications.get",
        ),
        ("INVALID_ARGUMENT", "Queue ID must be letters.", "Queue ID must be letters. Correct the settings that begin"),
        ("UNIMPLEMENTED", "No.", "Cloud Tasks does not take tasks for the queue .*: No. Try again"),
    ],
)
def test_what_stays_is_told_at_once_with_the_way_out(status, said, sentence, google):
    import grpc

    google.troubles = [(getattr(grpc.StatusCode, status), said)]
    with pytest.raises(BackendUnreachable, match=sentence):
        enqueue()
    assert google.calls == 1


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("DISABLED", r"is disabled, .* queue\.yaml .* Name it in queue\.yaml and deploy that"),
        ("PAUSED", r"is paused, .*gcloud tasks queues resume default"),
    ],
)
def test_the_state_of_a_queue_is_told_where_it_can_be_asked(state, sentence, google):
    import grpc
    from google.cloud.tasks_v2 import types

    google.state = types.Queue.State[state]
    google.troubles = [(grpc.StatusCode.FAILED_PRECONDITION, "The queue cannot take it.")]
    with pytest.raises(BackendUnreachable, match=sentence):
        enqueue()
    with pytest.raises(ConfigurationError, match=sentence):
        api.start_migration(KEY, actor="tester")
    assert api.get_record(KEY) is None


def test_where_the_state_may_not_be_asked_a_start_goes_on(google):
    make_cities("default", 3)
    api.start_migration(KEY, actor="tester")
    assert api.get_record(KEY) is not None


def test_over_http_another_role_is_missing(google, settings):
    import grpc

    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com"
    google.troubles = [(grpc.StatusCode.PERMISSION_DENIED, "No.")]
    with pytest.raises(
        BackendUnreachable, match=r"roles/iam\.serviceAccountUser on MASSMIGRATION_TASK_SERVICE_ACCOUNT"
    ):
        enqueue()


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED"])
def test_what_passes_is_tried_again(status, google):
    import grpc

    google.troubles = [(getattr(grpc.StatusCode, status), "Later.")] * 2
    enqueue()
    assert google.calls == 3


def test_what_does_not_pass_is_told_in_the_end(google, monkeypatch):
    import grpc

    monkeypatch.setattr(cloudqueue, "PATIENCE_SECONDS", 1.0)
    google.troubles = [(grpc.StatusCode.UNAVAILABLE, "The service is\ncurrently unavailable.")] * 100
    with pytest.raises(BackendUnreachable, match=r": The service is currently unavailable\. Try again in a moment\.$"):
        enqueue()
    assert google.calls > 2


def test_a_task_that_the_queue_has_already_is_no_error(google):
    import grpc

    google.troubles = [(grpc.StatusCode.ALREADY_EXISTS, "The task cannot be created because it exists.")]
    enqueue(name="the same piece of work")
    assert google.calls == 1


MISSING = [
    (
        {"MASSMIGRATION_TASK_PROJECT": ""},
        "E010",
        "Set MASSMIGRATION_TASK_PROJECT, or GOOGLE_CLOUD_PROJECT",
    ),
    ({"MASSMIGRATION_TASK_LOCATION": ""}, "E010", "Set MASSMIGRATION_TASK_LOCATION to its region"),
    ({"MASSMIGRATION_TASK_URL": "https://a.example.com"}, "E010", "MASSMIGRATION_TASK_SERVICE_ACCOUNT is not"),
    ({"ROOT_URLCONF": "tests.no_urls"}, "E011", r'Add path\("massmigration/", include\("massmigration.urls"\)\)'),
]


@pytest.mark.parametrize(("values", "number", "sentence"), MISSING, ids=[next(iter(row[0])) for row in MISSING])
def test_what_is_missing_is_told_by_the_check_and_at_the_start(values, number, sentence, settings):
    assert check_backends(None) == []
    for name, value in values.items():
        setattr(settings, name, value)
    (message,) = check_backends(None)
    assert message.id == f"massmigration.{number}"
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        api.start_migration(KEY, actor="tester")
    assert str(caught.value) == message.msg
    assert api.get_record(KEY) is None
    with pytest.raises(ConfigurationError, match=sentence):
        enqueue()
    settings.MASSMIGRATION_BACKEND = "massmigration.backends.local.LocalBackend"
    assert check_backends(None) == [], "who does not use it is not bothered"


def test_a_bad_value_is_told_once(settings):
    settings.MASSMIGRATION_TASK_URL = "jobs.example.com"
    assert check_backends(None) == []
    assert [message.id for message in check_settings(None)] == ["massmigration.E006"]


def test_with_an_emulator_no_account_is_missing(settings, monkeypatch):
    settings.MASSMIGRATION_TASK_URL = "http://127.0.0.1:8000"
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9022")
    assert check_backends(None) == []
    monkeypatch.setenv("K_SERVICE", "jobs")
    assert {message.id for message in check_backends(None)} == {"massmigration.E010", "massmigration.W004"}


def test_w004_a_url_without_tls(settings):
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ACCOUNT
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com"
    assert check_backends(None) == []
    settings.MASSMIGRATION_TASK_URL = "http://jobs.example.com"
    assert [message.id for message in check_backends(None)] == ["massmigration.W004"]


@pytest.mark.parametrize("hosts", [[], ["example.com"], ["jobs.example.org"]])
def test_w005_a_host_that_django_refuses(hosts, settings):
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ACCOUNT
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com:8443/base"
    settings.ALLOWED_HOSTS = hosts
    (message,) = check_backends(None)
    assert (message.id, message.hint) == ("massmigration.W005", "Add 'jobs.example.com' to ALLOWED_HOSTS.")
    settings.ALLOWED_HOSTS = [".example.com"]
    assert check_backends(None) == []


def test_w006_a_redirect_that_app_engine_does_not_follow(settings):
    settings.SECURE_SSL_REDIRECT = True
    (message,) = check_backends(None)
    assert message.id == "massmigration.W006"
    assert message.hint == 'Add r"^massmigration/" to SECURE_REDIRECT_EXEMPT.'
    settings.SECURE_REDIRECT_EXEMPT = [r"^massmigration/"]
    assert check_backends(None) == []
    settings.SECURE_REDIRECT_EXEMPT = []
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com"
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ACCOUNT
    assert check_backends(None) == [], "over HTTP there is TLS"


def test_a_library_that_is_missing_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "google", None)
    for name in [name for name in sys.modules if name.startswith("google.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(BackendNotInstalled, match=r"Type: pip install 'massmigration\[cloudtasks\]'"):
        CloudTasksBackend(None, {})


def test_nothing_of_google_is_imported_before_a_task_is_sent():
    code = (
        "import sys\n"
        "from django.core.management import call_command; call_command('check')\n"
        "import massmigration.urls\n"
        "print([name for name in sys.modules if name.startswith(('google.api_core', 'google.auth', 'grpc'))])\n"
    )
    done = run_code(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_a_body_is_small_json(queue):
    queue.pause()
    enqueue()
    (task,) = queue.list()
    body = task.app_engine_http_request.body
    assert len(body) < 300
    assert json.loads(b64_decode(body.partition(b":")[0])) == {"task": RUN_SHARD, "arguments": ARGUMENTS}
