"""What google-cloud-logging makes of our lines: its real handlers, and the example as it runs on the platforms."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from google.auth.credentials import AnonymousCredentials
from google.cloud import logging as cloud_logging
from google.cloud.logging.handlers import CloudLoggingHandler, StructuredLogHandler
from google.cloud.logging_v2.handlers import structured_log
from google.cloud.logging_v2.handlers.middleware import RequestMiddleware
from google.cloud.logging_v2.handlers.transports import Transport

from massmigration import MapperMigration, executor, logs
from tests.cloud.app.models import Row
from tests.conftest import ROOT
from tests.engine.support import AUTHOR, run
from tests.markdown import read

EXAMPLE = ROOT / "example_project"
KEY = "cloudapp:0001_test"
TAKEN_BY_ERROR_REPORTING = {"@type", "context", "eventTime", "exception", "message", "serviceContext", "stack_trace"}


class Count(MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias)

    def operation(self, row, db_alias):
        row.visits += 1


class Picky(Count):
    def operation(self, row, db_alias):
        password = "-".join(["correct", "horse"])  # noqa: F841  (no line may show it)
        if row.name == "row 3":
            raise ValueError("no such zone")
        row.visits += 1


class SkipsAll(Picky):
    on_error = "skip"


def make(definition: type[Count]) -> Count:
    return definition("cloudapp", "0001_test")


def make_rows(db_alias: str, count: int) -> None:
    Row.objects.using(db_alias).bulk_create([Row(name=f"row {number}") for number in range(count)])


def parse(text: str) -> list[dict]:
    """Read what the handler wrote as the platform does: one JSON object per line."""
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if "logging.googleapis.com/diagnostic" not in entry]


def get_labels(entry: dict) -> dict[str, str]:
    return entry["logging.googleapis.com/labels"]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged while the test runs, as google-cloud-logging's handler writes it."""
    stream = io.StringIO()
    handler = StructuredLogHandler(stream=stream, project_id="test")
    logger = logging.getLogger("massmigration")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_run_is_entries_with_fields_and_labels(db_alias, stream):
    make_rows(db_alias, 50)
    progress = run(make(Count), db_alias)
    assert progress.status == "applied"
    entries = parse(stream.getvalue())
    attempt = str(progress.attempt_uuid)
    assert [entry["event"] for entry in entries if entry["event"] != "slice"] == ["start", "begin", "finish"]
    for entry in entries:
        assert entry["severity"] in ("INFO", "WARNING")
        assert (entry["key"], entry["db_alias"], entry["attempt"]) == (KEY, db_alias, attempt)
        assert entry["message"].startswith(KEY)
        assert get_labels(entry) == {
            "python_logger": "massmigration",
            "massmigration_key": KEY,
            "massmigration_database": db_alias,
            "massmigration_attempt": attempt,
        }
    slices = [entry for entry in entries if entry["event"] == "slice"]
    assert sum(entry["rows"] for entry in slices) == sum(entry["changed"] for entry in slices) == 50
    for entry in slices:
        assert entry["outcome"] == "done"
        assert isinstance(entry["seconds"], float)
        assert entry["worker"] and entry["shard"]
    assert len(entries) < 50, "a line per row"
    start = entries[0]
    assert (start["actor"], start["origin"], start["status"]) == (AUTHOR.actor, AUTHOR.origin, "enqueued")


def test_a_failure_is_one_entry_for_error_reporting(db_alias, stream):
    make_rows(db_alias, 5)
    assert run(make(Picky), db_alias).status == "failed"
    entries = parse(stream.getvalue())
    (entry,) = [entry for entry in entries if entry["severity"] == "ERROR"]
    assert (entry["event"], entry["status"], entry["reason"]) == ("fail", "failed", "operation_error")
    assert entry["error_class"] == "builtins.ValueError"
    assert entry["object_key"] == str(Row.objects.using(db_alias).get(name="row 3").pk)
    first, *_, last = entry["message"].splitlines()
    assert first.startswith(f"{KEY} failed on database '{db_alias}': ValueError: no such zone")
    assert "Traceback (most recent call last):" in entry["message"].splitlines()
    assert last == "ValueError: no such zone", "by which it is grouped"
    assert not [other for other in entries if other is not entry and "Traceback" in other["message"]]
    assert "correct-horse" not in stream.getvalue()


@pytest.mark.usefixtures("clean_databases")
def test_objects_that_are_passed_over_are_no_errors_but_the_run_is_one(stream):
    make_rows("default", 5)
    assert run(make(SkipsAll), "default").reason == "failures_open"
    entries = parse(stream.getvalue())
    (warning,) = [entry for entry in entries if entry["event"] == "failure"]
    assert warning["severity"] == "WARNING"
    assert "Traceback" not in warning["message"]
    (error,) = [entry for entry in entries if entry["severity"] == "ERROR"]
    assert error["reason"] == "failures_open"
    assert "Traceback (most recent call last):" in error["message"]


@pytest.mark.usefixtures("clean_databases")
def test_a_line_lies_below_its_request(stream):
    def view(request):
        executor.start(make(Count), "default", AUTHOR, enqueue=False)
        return HttpResponse()

    trace = "105445aa7843bc8bf206b12000100000"
    request = RequestFactory().post("/admin/", headers={"X-Cloud-Trace-Context": f"{trace}/1;o=1"})
    middleware = RequestMiddleware(view)
    try:
        middleware(request)
    finally:
        RequestMiddleware(None)(None)  # it keeps the last request of the thread
    (entry,) = parse(stream.getvalue())
    assert entry["logging.googleapis.com/trace"] == f"projects/test/traces/{trace}"
    assert entry["event"] == "start"


@pytest.mark.usefixtures("clean_databases")
def test_the_handler_that_sends_shows_the_same_fields():
    sent = []

    class Collected(Transport):
        def __init__(self, client, name, **options):
            pass

        def send(self, record, message, **options):
            sent.append((message, options["labels"]))

    client = cloud_logging.Client(project="test", credentials=AnonymousCredentials(), _use_grpc=False)
    handler = CloudLoggingHandler(client, transport=Collected)
    logger = logging.getLogger("massmigration")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        executor.start(make(Count), "default", AUTHOR, enqueue=False)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    ((message, labels),) = sent
    assert (message["event"], message["key"], message["actor"]) == ("start", KEY, AUTHOR.actor)
    assert message["message"] == f"{KEY} was started on database 'default' by tester (api)"
    assert labels["massmigration_key"] == KEY


def test_no_field_has_a_name_that_google_takes_for_something_else():
    documented = set(read("logging.md").get_section("Fields").terms)
    assert "key" in documented
    assert not documented & structured_log.GCP_STRUCTURED_LOGGING_FIELDS
    assert not documented & TAKEN_BY_ERROR_REPORTING
    assert all(label.startswith("massmigration_") for label in logs.LABELS.values())


def run_example(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the example project."""
    platform = ("GAE_ENV", "K_SERVICE", "CLOUD_RUN_JOB", "DJANGO_SETTINGS_MODULE")
    environment = {name: value for name, value in os.environ.items() if name not in platform} | {
        "EXAMPLE_DB": str(directory / "db.sqlite3"),
        "DJANGO_SECRET_KEY": "only for tests",
        "GOOGLE_CLOUD_PROJECT": "test",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("variables", [{"GAE_ENV": "standard"}, {"K_SERVICE": "example"}, {"CLOUD_RUN_JOB": "example"}])
def test_the_example_writes_entries_to_stdout_on_googles_platforms(tmp_path, variables):
    run_example(tmp_path, "migrate", "--verbosity", "0", **variables)
    done = run_example(tmp_path, "massmigration", "fake", "places", "0001_city_slugs", "--actor", "anna", **variables)
    (entry,) = parse("\n".join(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (entry["event"], entry["severity"], entry["actor"]) == ("fake", "INFO", "anna")
    assert get_labels(entry)["massmigration_key"] == "places:0001_city_slugs"


def test_the_example_writes_plain_lines_elsewhere_if_asked(tmp_path):
    fake = ("massmigration", "fake", "places")
    run_example(tmp_path, "migrate", "--verbosity", "0")
    quiet = run_example(tmp_path, *fake, "0001_city_slugs", "--actor", "anna")
    assert "was marked as applied" not in quiet.stdout + quiet.stderr
    done = run_example(tmp_path, *fake, "0002_city_sizes", "--actor", "anna", EXAMPLE_LOG_LEVEL="INFO")
    assert "{" not in done.stdout + done.stderr
    assert "INFO places:0002_city_sizes was marked as applied on database 'default' by anna (command)" in done.stderr
