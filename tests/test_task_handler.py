"""The views that queues and cron call: what they answer, and that nobody else changes anything through them."""

from __future__ import annotations

import io
import json
import logging
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from django.apps import apps
from django.core import signing
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.test import Client
from django.utils import timezone

from massmigration import api, recorder, views
from massmigration.backends import payloads
from massmigration.backends.base import RUN_SHARD, WATCH, BaseBackend
from massmigration.exceptions import BackendUnreachable
from massmigration.models import MigrationRecord, MigrationShard
from tests.conftest import needs_postgres
from tests.faults.queues import ListBackend
from tests.faults.support import get_visits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

KEY = "testapp:0001_writes_back"
RUN = "/massmigration/run/"
RECOVER = "/massmigration/recover/"
QUEUE_HEADER = {"X-AppEngine-QueueName": "default"}
CRON_HEADER = {"X-Appengine-Cron": "true"}
DAY = 24 * 60 * 60

EVIL: list[str] = []


class DownBackend(BaseBackend):
    """A queue that does not take anything."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        raise BackendUnreachable("The queue does not answer.")


class Evil:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return EVIL.append, ("unpickled",)


@pytest.fixture(autouse=True)
def app_engine(settings, monkeypatch):
    """Let the site run on App Engine, on a queue that the test delivers."""
    for name in ("K_SERVICE", "TASKS_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GAE_ENV", "standard")
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    ListBackend.empty()
    EVIL.clear()
    yield
    ListBackend.empty()


@pytest.fixture
def shard() -> MigrationShard:
    """Start a migration and return its first shard, whose task waits."""
    make_cities("default", 30)
    api.start_migration(KEY, actor="tester")
    (first,) = MigrationShard.objects.filter(status=MigrationShard.READY)
    return first


def ask_for(shard: MigrationShard) -> bytes:
    return payloads.dump(RUN_SHARD, {"shard_id": shard.pk, "db_alias": "default"})


def post(body: bytes, headers: dict[str, str] | None = None, path: str = RUN, **options: Any) -> Any:
    """Post a body as App Engine's queue does, unless told otherwise."""
    options = {"content_type": payloads.CONTENT_TYPE} | options
    client = options.pop("client", None) or Client(enforce_csrf_checks=True, raise_request_exception=False)
    return client.post(path, body, headers=QUEUE_HEADER if headers is None else headers, **options)


def deliver_all(headers: dict[str, str] | None = None) -> None:
    """Deliver over HTTP until nothing waits."""
    while ListBackend.waiting:
        task, arguments = ListBackend.waiting.pop(0)
        answer = post(payloads.dump(task, json.loads(arguments)), headers)
        assert (answer.status_code, answer.content) == (200, b"done")


def take_snapshot() -> list[Any]:
    """Return all that is stored, ours and the rows that are migrated, and what waits in the queue."""
    models: list[Any] = [*apps.get_app_config("massmigration").get_models(), City]
    return [list(model.objects.order_by("pk").values()) for model in models] + [list(ListBackend.waiting)]


def sign(value: str, *, key: str | None = None, salt: str = payloads.SALT, age: float = 0) -> bytes:
    """Sign as ``dump`` does, with another key, salt or age."""
    moment = signing.b62_encode(int(time.time() - age))
    return signing.Signer(key=key, salt=salt).sign(f"{value}:{moment}").encode()


def encode(value: Any) -> str:
    return signing.b64_encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def test_the_body_is_signed_as_the_tests_sign(shard):
    value = {"task": RUN_SHARD, "arguments": {"shard_id": shard.pk, "db_alias": "default"}}
    assert sign(encode(value)).rpartition(b":")[0] == ask_for(shard).rpartition(b":")[0]


class Case(NamedTuple):
    """A hostile request and its answer.

    Attributes:
        name: What is wrong with it.
        status: Of the answer.
        body: Makes the body from the one that would work, and its shard.
        headers: Of the request.
        options: Of the test client.
        environment: Variables that differ; None takes one away.
    """

    name: str
    status: int
    body: Callable[[bytes, MigrationShard], bytes] = lambda good, shard: good
    headers: dict[str, str] = QUEUE_HEADER
    options: dict[str, Any] = {}
    environment: dict[str, str | None] = {}


def asking(task: Any, **arguments: Any) -> Callable[[bytes, MigrationShard], bytes]:
    """Make a body that is signed by us and asks for this; ``shard_id`` is a real one unless it is given or None."""

    def make(good: bytes, shard: MigrationShard) -> bytes:
        wanted = {"shard_id": shard.pk, "db_alias": "default"} | arguments
        left = {name: value for name, value in wanted.items() if value is not None}
        return sign(encode({"task": task, "arguments": left}))

    return make


def signed(value: Any) -> Callable[[bytes, MigrationShard], bytes]:
    return lambda good, shard: sign(value if isinstance(value, str) else encode(value))


OTHER_KEY = "another site's secret"
PICKLE = signing.b64_encode(pickle.dumps(Evil())).decode()

HOSTILE = [
    Case("no header", 403, headers={}),
    Case("an empty header", 403, headers={"X-AppEngine-QueueName": ""}),
    Case("a header of another kind of queue", 403, headers={"X-CloudTasks-QueueName": "default"}),
    Case("a forged header, off App Engine", 403, environment={"GAE_ENV": None}),
    Case("a forged header, in djangae's sandbox", 403, environment={"GAE_ENV": "development"}),
    Case("a forged header, on the development server", 403, environment={"GAE_ENV": "localdev"}),
    Case("a forged header, on Cloud Run", 403, environment={"GAE_ENV": None, "K_SERVICE": "jobs"}),
    Case("an emulator in production", 403, headers={}, environment={"TASKS_EMULATOR_HOST": "127.0.0.1:9022"}),
    Case("no body", 403, lambda good, shard: b"", options={"CONTENT_TYPE": payloads.CONTENT_TYPE}),
    Case("another key", 403, lambda good, shard: sign(good.decode().partition(":")[0], key=OTHER_KEY)),
    Case("another salt", 403, lambda good, shard: sign(good.decode().partition(":")[0], salt="django.core.signing")),
    Case("no signature", 403, lambda good, shard: good.partition(b":")[0]),
    Case("a signature cut off", 403, lambda good, shard: good[:-5]),
    Case("a body cut off", 403, lambda good, shard: good[10:]),
    Case("another body under the signature", 403, lambda good, shard: encode({}).encode() + good[good.index(b":") :]),
    Case("another time under the signature", 403, lambda good, shard: good.replace(b":", b":z", 1)),
    Case("plain JSON", 403, lambda good, shard: json.dumps({"task": RUN_SHARD, "arguments": {}}).encode()),
    Case("not a text", 403, lambda good, shard: b"\xff\xfe" + good),
    Case("a pickle", 403, lambda good, shard: pickle.dumps(Evil())),
    Case("a pickle, signed with another key", 403, lambda good, shard: sign(PICKLE, key=OTHER_KEY)),
    Case("a pickle, signed by us", 400, signed(PICKLE)),
    Case("32 days old", 403, lambda good, shard: sign(good.decode().partition(":")[0], age=32 * DAY)),
    Case("2 MB", 413, lambda good, shard: b"x" * 2_000_000),
    Case("2 MB after a good body", 413, lambda good, shard: good + b" " * 2_000_000),
    Case("one byte too many", 413, lambda good, shard: good.ljust(payloads.MAX_BYTES + 1)),
    Case("a length of 60 digits", 413, options={"CONTENT_LENGTH": "9" * 60}),
    Case("a length that is no number", 403, options={"CONTENT_LENGTH": "-5"}),
    Case("a form", 415, options={"content_type": "application/x-www-form-urlencoded"}),
    Case("a form with a file", 415, options={"content_type": "multipart/form-data; boundary=x"}),
    Case("plain text", 415, options={"content_type": "text/plain"}),
    Case("a task that there is not", 400, asking("massmigration.tasks.nope")),
    Case("a function that is no task", 400, asking("massmigration.executor.reset.reset")),
    Case("a function of Python", 400, asking("os.system", command="true", shard_id=None, db_alias=None)),
    Case("a list of tasks", 400, asking([RUN_SHARD])),
    Case("no task", 400, asking(None)),
    Case("an argument too many", 400, asking(RUN_SHARD, extra="x")),
    Case("an argument missing", 400, asking(RUN_SHARD, shard_id=None)),
    Case("a number for a text", 400, asking(RUN_SHARD, shard_id=7)),
    Case("a list for a text", 400, asking(RUN_SHARD, shard_id=["x"])),
    Case("a database that there is not", 400, asking(RUN_SHARD, db_alias="nope")),
    Case("the arguments of another task", 400, asking(WATCH)),
    Case("an attempt that is no UUID", 400, asking(WATCH, shard_id=None, key=KEY, attempt="7")),
    Case(
        "a time that is none",
        400,
        asking(WATCH, shard_id=None, key=KEY, attempt="00000000-0000-0000-0000-000000000000", due_at="soon"),
    ),
    Case("arguments that are a list", 400, signed({"task": RUN_SHARD, "arguments": ["x", "default"]})),
    Case("more than a task", 400, signed({"task": RUN_SHARD, "arguments": {}, "user": "root"})),
    Case("a list", 400, signed([RUN_SHARD])),
    Case("null", 400, signed("bnVsbA")),
    Case("a shard that there is not", 200, asking(RUN_SHARD, shard_id="0" * 32)),
    Case("a shard with a strange name", 200, asking(RUN_SHARD, shard_id="'; DROP TABLE massmigration_shard; --\x00")),
    Case(
        "an attempt that there is not",
        200,
        asking(WATCH, shard_id=None, key=KEY, attempt="00000000-0000-0000-0000-000000000000"),
    ),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_a_hostile_request_changes_nothing(case: Case, shard, monkeypatch, caplog):
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    before = take_snapshot()
    answer = post(case.body(ask_for(shard), shard), case.headers, **case.options)
    assert answer.status_code == case.status
    assert take_snapshot() == before
    assert EVIL == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    if case.status != 200:
        assert answer.content in (
            b"Bad Request",
            b"Forbidden",
            b"Request Entity Too Large",
            b"Content Too Large",
            b"Unsupported Media Type",
        )
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_nothing_but_post_is_taken(method, shard):
    before = take_snapshot()
    answer = getattr(Client(), method)(RUN, headers=QUEUE_HEADER)
    assert answer.status_code == 405
    assert answer["Allow"] == "POST"
    assert take_snapshot() == before


def test_without_the_faults_the_same_request_is_served(shard):
    before = take_snapshot()
    assert post(ask_for(shard)).status_code == 200
    assert take_snapshot() != before


@pytest.mark.parametrize("age", [0, 30 * DAY])
def test_a_task_may_wait_as_long_as_cloud_tasks_keeps_it(age, shard):
    before = take_snapshot()
    assert post(sign(ask_for(shard).decode().partition(":")[0], age=age)).status_code == 200
    assert take_snapshot() != before


def test_2_mb_of_unknown_length_are_not_read(shard):
    body = io.BytesIO(ask_for(shard) + b" " * 2_000_000)
    headers = [(b"x-appengine-queuename", b"default"), (b"content-type", payloads.CONTENT_TYPE.encode())]
    scope = {"type": "http", "method": "POST", "path": RUN, "headers": headers, "query_string": b""}
    before = take_snapshot()
    assert views.run_task(ASGIRequest(scope, body)).status_code == 413
    assert body.tell() == payloads.MAX_BYTES + 1
    assert take_snapshot() == before


def test_a_migration_runs_to_its_end_over_http(shard):
    deliver_all()
    assert api.get_progress(KEY).status == "applied"
    assert get_visits("default") == {1}


def test_each_task_delivered_twice_visits_each_row_once(shard):
    while ListBackend.waiting:
        task, arguments = ListBackend.waiting.pop()
        for _ in range(2):
            assert post(payloads.dump(task, json.loads(arguments))).status_code == 200
    assert api.get_progress(KEY).status == "applied"
    assert get_visits("default") == {1}


def test_a_body_of_a_shard_that_is_done_changes_nothing_when_it_is_sent_again(shard):
    bodies = []
    while ListBackend.waiting:
        task, arguments = ListBackend.waiting.pop(0)
        bodies.append(payloads.dump(task, json.loads(arguments)))
        assert post(bodies[-1]).status_code == 200
    before = take_snapshot()
    assert [post(body).status_code for body in bodies] == [200] * len(bodies)
    assert take_snapshot() == before


def test_a_task_of_an_old_attempt_changes_nothing(shard):
    old = api.get_record(KEY).attempt_uuid
    bodies = [ask_for(shard), payloads.dump(WATCH, {"key": KEY, "db_alias": "default", "attempt": str(old)})]
    api.cancel_migration(KEY, actor="tester")
    api.start_migration(KEY, actor="tester")
    assert api.get_record(KEY).attempt_uuid != old
    before = take_snapshot()
    assert [post(body).status_code for body in bodies] == [200, 200]
    assert take_snapshot() == before


def test_a_key_that_was_rotated_still_counts(shard, settings):
    body = ask_for(shard)
    settings.SECRET_KEY, old = "a new one", settings.SECRET_KEY
    assert post(body).status_code == 403
    settings.SECRET_KEY_FALLBACKS = [old]
    assert post(body).status_code == 200


def test_login_middleware_is_passed(shard, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert post(ask_for(shard)).status_code == 200
    assert post(b"", CRON_HEADER, RECOVER).status_code == 200


def test_no_transaction_is_put_around_the_views(monkeypatch):
    def other_view(request):
        pass

    for alias in connections:
        monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    wrap = BaseHandler().make_view_atomic
    assert wrap(other_view) is not other_view
    assert wrap(views.run_task) is views.run_task
    assert wrap(views.recover) is views.recover


@pytest.fixture
def gone(tmp_path):
    """Take the file of the database ``default`` away."""
    connection = connections["default"]
    connection.close()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = str(tmp_path / "no such folder" / "db.sqlite3")
    yield
    connection.close()
    connection.settings_dict["NAME"] = name


def get_lines(caplog: Any, level: int) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= level]


@pytest.mark.parametrize(
    ("is_http_target", "status", "content"), [(False, 429, b"Too Many Requests"), (True, 503, b"Service Unavailable")]
)
def test_a_database_that_does_not_answer_is_tried_again(
    gone, caplog, settings, monkeypatch, is_http_target, status, content
):
    if is_http_target:  # on App Engine, 503 slows down the whole queue, and 429 does not; over HTTP, both do
        settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com"
        monkeypatch.delenv("GAE_ENV")
        monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9022")
    answer = post(payloads.dump(RUN_SHARD, {"shard_id": "x", "db_alias": "default"}))
    assert answer.status_code == status
    assert int(answer["Retry-After"]) > 0
    assert answer.content == content
    (line,) = get_lines(caplog, logging.WARNING)
    assert (line.levelname, line.name) == ("WARNING", "massmigration")
    assert (
        "massmigration.tasks.run_shard is to be delivered again: OperationalError: unable to open database file"
        in line.getMessage()
    )


def test_a_queue_that_does_not_take_the_next_task_costs_time_only(request, settings, caplog):
    settings.MASSMIGRATION_WATCH_SECONDS = 0.4
    shard = request.getfixturevalue("shard")
    (watch,) = [waiting for waiting in ListBackend.waiting if waiting[0] == WATCH]
    ListBackend.empty()
    settings.MASSMIGRATION_BACKEND = "tests.test_task_handler.DownBackend"
    answer = post(ask_for(shard))
    assert answer.status_code == 429
    assert get_lines(caplog, logging.ERROR) == []
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    time.sleep(0.5)
    assert post(ask_for(shard)).status_code == 200
    ListBackend.waiting.append(watch)
    deliver_all()
    assert api.get_progress(KEY).status == "applied"
    assert get_visits("default") == {1}


def test_a_fault_in_the_code_is_logged_once(shard, settings, caplog):
    settings.MASSMIGRATION_BACKEND = "no.such.Backend"
    assert post(ask_for(shard)).status_code == 500
    (line,) = get_lines(caplog, logging.ERROR)
    assert line.exc_info is not None


def test_the_log_says_why_and_the_answer_does_not(shard, caplog):
    answer = post(ask_for(shard), {})
    assert answer.content == b"Forbidden"
    (line,) = get_lines(caplog, logging.WARNING)
    assert line.getMessage() == (
        "/massmigration/run/ 403: the header X-AppEngine-QueueName is missing, so no queue of App Engine sent it"
    )


RETRIES = "X-AppEngine-TaskRetryCount"
HOPELESS = [
    case
    for case in HOSTILE
    if case.name
    in {
        "another key",
        "32 days old",
        "a task that there is not",
        "a database that there is not",
        "plain text",
        "one byte too many",
    }
]


@pytest.mark.parametrize("case", HOPELESS, ids=lambda case: case.name)
def test_what_can_never_be_served_is_dropped_after_ten_tries_with_one_error(case, shard, caplog):
    before, body = take_snapshot(), case.body(ask_for(shard), shard)
    tries = [post(body, {**QUEUE_HEADER, RETRIES: str(count)}, **case.options).status_code for count in range(11)]
    assert tries == [case.status] * 10 + [200]
    (line,) = get_lines(caplog, logging.ERROR)
    assert "was refused 10 times, and is dropped" in line.getMessage()
    assert take_snapshot() == before


@pytest.mark.parametrize("count", ["", "-1", "9", "ten", "1e3", "10 ", "٣٠", "9" * 5000])
def test_an_odd_count_drops_nothing(count, shard):
    headers = {**QUEUE_HEADER, RETRIES: count}
    assert post(ask_for(shard)[:-3], headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{RETRIES: "99"}, {"X-CloudTasks-TaskRetryCount": "99"}, {**QUEUE_HEADER, "X-CloudTasks-TaskRetryCount": "99"}],
    ids=["a stranger", "a stranger on another way", "a count of another kind of queue"],
)
def test_the_count_of_a_stranger_is_not_believed(headers, shard):
    before = take_snapshot()
    assert post(ask_for(shard)[:-3], headers).status_code == 403
    assert take_snapshot() == before


def test_the_count_drops_nothing_that_can_be_served(shard, settings):
    headers = {**QUEUE_HEADER, RETRIES: "99"}
    settings.MASSMIGRATION_BACKEND = "tests.test_task_handler.DownBackend"
    settings.MASSMIGRATION_WATCH_SECONDS = 0.1
    time.sleep(0.3)
    assert post(ask_for(shard), headers).status_code == 429
    settings.MASSMIGRATION_BACKEND = "no.such.Backend"
    assert post(ask_for(shard), headers).status_code == 500
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    assert post(ask_for(shard), headers).status_code == 200
    assert MigrationShard.objects.filter(pk=shard.pk, status=MigrationShard.DONE).exists()


def test_an_http_target_has_a_header_of_its_own_for_the_count(shard, settings, monkeypatch):
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com"
    monkeypatch.delenv("GAE_ENV")
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9022")
    body = ask_for(shard)[:-3]
    assert post(body, {"X-CloudTasks-TaskRetryCount": "10"}).status_code == 200
    assert post(body, {RETRIES: "10"}).status_code == 403


def test_an_emulator_needs_no_header(shard, monkeypatch):
    monkeypatch.delenv("GAE_ENV")
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9022")
    assert post(ask_for(shard), {}).status_code == 200
    assert post(ask_for(shard)[:-1], {}).status_code == 403


def stall(db_alias: str = "default") -> None:
    """Let the run look as if its tasks had been lost hours ago."""
    ListBackend.empty()
    MigrationRecord.objects.using(db_alias).update(moved_at=timezone.now() - timedelta(hours=5))
    assert api.get_progress(KEY, db_alias).stalled


STRANGERS: list[tuple[str, dict[str, str], dict[str, str | None]]] = [
    ("nobody", {}, {}),
    ("a queue", QUEUE_HEADER, {}),
    ("a header with another value", {"X-Appengine-Cron": "false"}, {}),
    ("a forged header, off App Engine", CRON_HEADER, {"GAE_ENV": None}),
    ("a forged header, in djangae's sandbox", CRON_HEADER, {"GAE_ENV": "development"}),
    ("a forged header, on Cloud Run", CRON_HEADER, {"GAE_ENV": None, "K_SERVICE": "jobs"}),
    ("an emulator", {}, {"GAE_ENV": None, "TASKS_EMULATOR_HOST": "127.0.0.1:9022"}),
    ("a token that nobody can verify", {"Authorization": "Bearer a.b.c"}, {}),
]


@pytest.mark.parametrize(("name", "headers", "environment"), STRANGERS, ids=[row[0] for row in STRANGERS])
def test_strangers_recover_nothing(name, headers, environment, shard, monkeypatch):
    stall()
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value) if value is not None else monkeypatch.delenv(variable)
    before = take_snapshot()
    for method in ("get", "post"):
        answer = getattr(Client(enforce_csrf_checks=True), method)(RECOVER, headers=headers)
        assert (answer.status_code, answer.content) == (403, b"Forbidden")
    assert take_snapshot() == before


@pytest.mark.parametrize("method", ["get", "post"])
def test_cron_recovers_what_is_stalled(method, shard):
    stall()
    answer = getattr(Client(enforce_csrf_checks=True), method)(RECOVER, headers=CRON_HEADER)
    assert (answer.status_code, answer.json()) == (
        200,
        {"recovered": [{"key": KEY, "database": "default"}], "failed": []},
    )
    assert recorder.get_events(KEY, "default", 1)[0].actor == "cron"
    deliver_all()
    assert api.get_progress(KEY).status == "applied"
    assert get_visits("default") == {1}


def test_cron_leaves_alone_what_goes_on(shard):
    before = take_snapshot()
    answer = Client().get(RECOVER, headers=CRON_HEADER)
    assert answer.json() == {"recovered": [], "failed": []}
    assert take_snapshot() == before


@needs_postgres
def test_cron_recovers_what_it_can_reach_and_is_told_of_the_rest(caplog, tmp_path, request):
    make_cities("postgres", 3)
    api.start_migration(KEY, "postgres", actor="tester")
    stall("postgres")
    request.getfixturevalue("gone")
    answer = Client().get(RECOVER, headers=CRON_HEADER)
    assert answer.status_code == 503
    assert answer.json() == {
        "recovered": [{"key": KEY, "database": "postgres"}],
        "failed": [{"database": "default", "error": "OperationalError: unable to open database file"}],
    }
    assert len([line for line in get_lines(caplog, logging.WARNING) if "Not all could be" in line.msg]) == 1
    assert get_lines(caplog, logging.ERROR) == []


def test_cron_is_told_of_a_queue_that_is_down(shard, settings):
    stall()
    settings.MASSMIGRATION_BACKEND = "tests.test_task_handler.DownBackend"
    answer = Client().get(RECOVER, headers=CRON_HEADER)
    assert answer.status_code == 503
    (failure,) = answer.json()["failed"]
    assert failure["key"] == KEY
    assert "The queue does not answer." in failure["error"]


def test_cron_asks_with_get_or_post():
    assert Client().put(RECOVER, headers=CRON_HEADER).status_code == 405
