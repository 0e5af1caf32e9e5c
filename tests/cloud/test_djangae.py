"""DjangaeBackend with djangae and the emulator: what is on the queue, when, and what becomes of it."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib import import_module

import pytest
from djangae.tasks.models import DeferredTask
from django.contrib.auth.decorators import login_not_required
from django.core import checks
from django.db import OperationalError, transaction
from django.urls import path

from massmigration import api
from massmigration.backends import djangae
from massmigration.backends.base import RUN_SHARD, WATCH
from massmigration.backends.djangae import DjangaeBackend, run_task
from massmigration.exceptions import BackendUnreachable, ConfigurationError, DatabaseLocked
from tests import servers
from tests.cloud.conftest import DATABASES
from tests.servers import cloudtasks

BACKEND = "massmigration.backends.djangae.DjangaeBackend"
SHARD = {"shard_id": "Zürich – 東京 🚀", "db_alias": "default"}
LOOK = {"key": "cloudapp:0001_simple", "db_alias": "default", "attempt": "5f2c1a52-2b4c-4c5e-9d4e-2f2f4f4f4f4f"}

pytestmark = pytest.mark.usefixtures("clean_databases")


@pytest.fixture
def queue(task_queue, tasks_client):
    """Make a queue from which nothing is delivered, and return its short name."""
    tasks_client.pause_queue(name=task_queue)
    return task_queue.rpartition("/")[2]


@pytest.fixture
def list_tasks(task_queue, tasks_client):
    """Return what is on the queue: for each task its request, and function and arguments out of its body."""

    def read(task):
        request = task.app_engine_http_request
        function, args, kwargs = pickle.loads(request.body)
        assert (function, kwargs) == (run_task, {})
        return task, request, args[0], json.loads(args[1])

    def list_all():
        return [read(task) for task in tasks_client.list_tasks(parent=task_queue)]

    return list_all


@pytest.fixture
def on_app_engine(monkeypatch):
    """Have the environment of an instance of App Engine, but for what leads to Google."""
    monkeypatch.setenv("GAE_SERVICE", "worker")
    monkeypatch.setenv("GAE_VERSION", "20261121t080000")


def enqueue(queue, task=RUN_SHARD, arguments=SHARD, *, params=None, **options):
    DjangaeBackend(queue, params or {}).enqueue(task, arguments, db_alias="default", **options)


def test_a_task_is_small_and_carries_text_only(queue, list_tasks):
    enqueue(queue)
    ((_, request, name, arguments),) = list_tasks()
    assert (name, arguments) == (RUN_SHARD, SHARD)
    assert request.relative_uri == "/tasks/deferred/"
    assert len(request.body) < 500


def test_no_row_is_kept_for_a_task(queue, django_assert_num_queries):
    with django_assert_num_queries(0):
        enqueue(queue)
    assert not DeferredTask.objects.exists()


def test_a_shard_stays_with_its_version_and_a_watch_outlives_a_deploy(queue, list_tasks, on_app_engine):
    enqueue(queue)
    enqueue(queue, WATCH, LOOK)
    routes = [request.app_engine_routing for _, request, _, _ in list_tasks()]
    assert [(route.service, route.version) for route in routes] == [("worker", "20261121t080000"), ("worker", "")]


@pytest.mark.parametrize(
    ("given", "shard", "look"),
    [
        ({"_version": "v2"}, ("worker", "v2", ""), ("worker", "", "")),
        ({"_service": "worker"}, ("worker", "20261121t080000", ""), ("worker", "", "")),
        ({"_service": "other"}, ("other", "", ""), ("other", "", "")),
        ({"_service": "other", "_version": "v2", "_instance": "1"}, ("other", "v2", "1"), ("other", "", "")),
    ],
)
def test_where_a_migration_wants_its_tasks(queue, list_tasks, on_app_engine, given, shard, look):
    params = {"defer_kwargs": {"_headers": {"X-Why": "because"}, **given}}
    enqueue(queue, params=params)
    enqueue(queue, WATCH, LOOK, params=params)
    requests = [request for _, request, _, _ in list_tasks()]
    routes = [request.app_engine_routing for request in requests]
    assert [(route.service, route.version, route.instance) for route in routes] == [shard, look]
    assert {request.headers["X-Why"] for request in requests} == {"because"}


def test_the_queue_is_the_migrations_the_settings_or_djangaes(queue, list_tasks, settings, monkeypatch):
    used = []
    monkeypatch.setattr(import_module("djangae.tasks.deferred"), "_schedule_task", lambda *args: used.append(args[2]))
    for name, params in ((queue, {}), (queue, {"defer_kwargs": {"_queue": "other"}}), (None, {})):
        enqueue(name, params=params)
    assert used == [queue, "other", "default"]


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_delay_is_the_same_in_all_time_zones(queue, list_tasks, settings, use_tz):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
    before = datetime.now(timezone.utc)
    enqueue(queue, delay_seconds=90)
    enqueue(queue, delay_seconds=10**9)
    due = [task.schedule_time - before for task, *_ in list_tasks()]
    assert timedelta(seconds=89) < due[0] < timedelta(seconds=100)
    assert timedelta(days=29) < due[1] < timedelta(days=30), "as far as Cloud Tasks plans ahead"


def test_the_same_name_is_the_same_task(queue, list_tasks):
    for name in ("Zürich 1", "Zürich 1", "Zürich 2", ""):
        enqueue(queue, name=name)
    names = [task.name.rpartition("/")[2] for task, *_ in list_tasks()]
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == len(names[2]) == 64


def test_a_task_that_the_queue_has_already_is_no_trouble(queue, monkeypatch):
    from google.api_core.exceptions import AlreadyExists

    calls = []

    def refuse(*args, **options):
        calls.append(options)
        raise AlreadyExists("The task cannot be created because a task with this name existed too recently.")

    monkeypatch.setattr(import_module("djangae.tasks.deferred"), "defer", refuse)
    enqueue(queue, name="again")
    assert len(calls) == 1


@pytest.mark.parametrize("db_alias", DATABASES)
def test_a_task_waits_for_the_commit_on_its_database(queue, list_tasks, db_alias):
    backend, arguments = DjangaeBackend(queue, {}), SHARD | {"db_alias": db_alias}
    with transaction.atomic(using=db_alias):
        backend.enqueue(RUN_SHARD, arguments, db_alias=db_alias)
        assert list_tasks() == []
    assert len(list_tasks()) == 1
    with suppress(ZeroDivisionError), transaction.atomic(using=db_alias):
        backend.enqueue(RUN_SHARD, arguments, db_alias=db_alias)
        raise ZeroDivisionError
    assert len(list_tasks()) == 1


@pytest.mark.parametrize(("db_alias", "other"), [("default", "datastore"), ("datastore", "default")])
def test_a_transaction_of_another_database_neither_delays_nor_drops_a_task(queue, list_tasks, db_alias, other):
    with suppress(ZeroDivisionError), transaction.atomic(using=other):
        DjangaeBackend(queue, {}).enqueue(RUN_SHARD, SHARD, db_alias=db_alias)
        assert len(list_tasks()) == 1
        raise ZeroDivisionError
    assert len(list_tasks()) == 1


def test_a_queue_that_does_not_exist_is_told_in_a_sentence():
    with pytest.raises(BackendUnreachable) as caught:
        enqueue("no-such-queue")
    assert str(caught.value).startswith("Cloud Tasks has no queue 'projects/test/locations/europe-west1/queues/no-such")
    assert "gcloud tasks queues create no-such-queue" in str(caught.value)


def test_a_queue_that_cannot_be_reached_is_told_also_after_a_commit(monkeypatch):
    monkeypatch.setattr(djangae, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv(cloudtasks.HOST, f"127.0.0.1:{servers.get_free_port()}")
    with pytest.raises(BackendUnreachable, match="Cloud Tasks does not take tasks for the queue"), transaction.atomic():
        enqueue(None)


@pytest.fixture
def deliver(client, queue, list_tasks):
    """Send the next task to djangae's handler, as Cloud Tasks does, and return the status of its answer."""
    client.raise_request_exception = False

    def post(**headers):
        _, request, _, _ = list_tasks()[-1]
        headers = {"X-AppEngine-TaskName": "one", "X-AppEngine-QueueName": queue, **headers}
        answer = client.post(
            request.relative_uri, request.body, content_type="application/octet-stream", headers=headers
        )
        return answer.status_code

    return post


def test_the_handler_calls_the_task_with_its_arguments(queue, deliver, monkeypatch):
    calls = []
    monkeypatch.setattr(djangae, "import_string", lambda path: lambda **arguments: calls.append((path, arguments)))
    enqueue(queue)
    assert deliver() == 200
    enqueue(queue, WATCH, LOOK)
    assert deliver() == 200
    assert calls == [(RUN_SHARD, SHARD), (WATCH, LOOK)]


def test_without_its_header_the_handler_calls_nothing(queue, deliver, monkeypatch):
    calls = []
    monkeypatch.setattr(djangae, "import_string", calls.append)
    enqueue(queue)
    assert deliver(**{"X-AppEngine-TaskName": ""}) == 403
    assert calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OperationalError("the server closed the connection"), 408),
        (BackendUnreachable("Cloud Tasks does not answer."), 408),
        (DatabaseLocked("Another writer keeps the lock."), 408),
        (RuntimeError("a mistake of ours"), 500),
    ],
)
def test_a_task_that_fails_is_delivered_again(queue, deliver, monkeypatch, caplog, error, status):
    def fail(**arguments):
        raise error

    monkeypatch.setattr(djangae, "import_string", lambda path: fail)
    enqueue(queue)
    assert deliver() == status
    levels = {record.levelname for record in caplog.records}
    assert ("ERROR" in levels) == (status == 500), "what passes is no incident"
    if status == 408:
        assert str(error) in caplog.text


def get_checks(settings):
    settings.MASSMIGRATION_BACKEND = BACKEND
    return {message.id.rpartition(".")[2]: message for message in checks.run_checks(tags=["massmigration"])}


def test_the_site_of_these_tests_is_set_up(settings):
    assert set(get_checks(settings)) == {"W001"}, "of the tests' own migrations"


@pytest.mark.parametrize(
    ("setting", "value", "said", "hint"),
    [
        ("CLOUD_TASKS_LOCATION", None, "CLOUD_TASKS_LOCATION is not set", "europe-west1"),
        ("MIDDLEWARE", [], "middleware", "djangae.tasks.middleware.TaskEnvironmentMiddleware"),
        ("ROOT_URLCONF", "tests.urls", "URL", 'include("djangae.tasks.urls")'),
        ("INSTALLED_APPS", ["massmigration", "djangae"], "djangae.tasks is not in", '"djangae.tasks"'),
    ],
)
def test_what_is_missing_is_told_by_the_check_and_before_a_start(settings, setting, value, said, hint):
    setattr(settings, setting, value)
    message = get_checks(settings)["E012"]
    assert said in message.msg
    assert hint in message.hint
    backend = DjangaeBackend(None, {})
    for refused in (
        lambda: backend.check_launch("default", origin="admin"),
        lambda: backend.enqueue(RUN_SHARD, SHARD, db_alias="default"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            refused()


@pytest.mark.parametrize(
    "environment",
    [{}, {"K_SERVICE": "site"}, {"K_SERVICE": "site", cloudtasks.HOST: "127.0.0.1:9022"}, {"GAE_ENV": "development"}],
    ids=str,
)
def test_where_anybody_could_have_code_of_theirs_unpickled_it_is_refused(settings, monkeypatch, environment):
    for name in ("GAE_ENV", "K_SERVICE", cloudtasks.HOST):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = "anybody who reaches the site can have djangae's handler run code of theirs"
    message = get_checks(settings)["E012"]
    assert said in message.msg
    backend = DjangaeBackend(None, {})
    for origin in ("admin", "api", "command", "worker"):
        with pytest.raises(ConfigurationError, match=said):
            backend.check_launch("default", origin=origin)
    with pytest.raises(ConfigurationError, match=said):
        backend.enqueue(RUN_SHARD, SHARD, db_alias="default")
    with pytest.raises(ConfigurationError, match=said):
        api.start_migration("cloudapp:0001_simple", "default")
    assert api.get_record("cloudapp:0001_simple", "default") is None


@pytest.mark.parametrize("environment", [{"GAE_ENV": "standard"}, {"GAE_ENV": "development", cloudtasks.HOST: "x:1"}])
def test_on_app_engine_and_in_djangaes_sandbox_it_is_not_refused(settings, monkeypatch, environment):
    monkeypatch.delenv(cloudtasks.HOST)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert "E012" not in get_checks(settings)


def test_a_redirect_to_https_is_told(settings):
    settings.SECURE_SSL_REDIRECT = True
    assert "^tasks/deferred/" in get_checks(settings)["W006"].hint
    settings.SECURE_REDIRECT_EXEMPT = [r"^tasks/deferred/$"]
    assert "W006" not in get_checks(settings)


def plain(request):
    """Stand for djangae's handler, which is one function in a process and keeps its decorations."""


urlpatterns = [path("deferred/", plain, name="tasks_deferred_handler")]


def test_what_surrounds_every_view_is_told(settings):
    settings.ROOT_URLCONF = __name__
    settings.DATABASES["default"]["ATOMIC_REQUESTS"] = True
    try:
        assert "one transaction" in get_checks(settings)["W008"].msg
        transaction.non_atomic_requests(plain)
        assert "W008" not in get_checks(settings)
    finally:
        settings.DATABASES["default"]["ATOMIC_REQUESTS"] = False
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, djangae.LOGIN_MIDDLEWARE]
    assert "login page" in get_checks(settings)["W008"].msg
    login_not_required(plain)
    assert "W008" not in get_checks(settings)


def test_slices_end_well_before_the_deadline_of_a_request(settings):
    backend = DjangaeBackend(None, {})
    assert backend.slice_seconds == 450
    settings.MASSMIGRATION_TASK_DEADLINE = 3600
    assert backend.slice_seconds == 2700
