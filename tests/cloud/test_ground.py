"""The ground that the tests on the clouds stand on: rows that are really stored, and tasks that really arrive."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.db.models import F

from tests import servers
from tests.cloud.app.models import Number, Row, Token, Word
from tests.conftest import ROOT, get_environment
from tests.servers import cloudtasks, processes

READ_ROW = """
import sys
from tests.cloud.app.models import Row
row = Row.objects.using(sys.argv[-1]).get(name="here")
row.visits += 1
row.save()
"""


@pytest.mark.parametrize("round_number", [1, 2])
def test_rows_are_stored_and_gone_in_the_next_test(db_alias, round_number):
    rows = Row.objects.using(db_alias)
    assert not rows.exists()
    rows.bulk_create([Row(name=f"row {number}") for number in range(30)])
    assert rows.filter(flag=False).update(visits=F("visits") + 1) == 30
    assert list(rows.values_list("visits", flat=True)) == [1] * 30


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (Token, [uuid.UUID(int=1), uuid.UUID(int=2)]),
        (Word, ["a", "ä"]),
        (Number, [-5, 7]),
    ],
)
def test_keys_come_back_as_they_were_given(any_alias, model, keys):
    for key in keys:
        model.objects.using(any_alias).create(pk=key)
    assert list(model.objects.using(any_alias).order_by("pk").values_list("pk", flat=True)) == keys
    assert model.objects.using(any_alias).filter(flag=False).count() == len(keys)


def test_processes_that_tests_start_see_the_same_rows(any_alias, run_manage):
    Row.objects.using(any_alias).create(name="here")
    done = run_manage("shell", "--command", READ_ROW.replace("sys.argv[-1]", repr(any_alias)))
    assert (done.returncode, done.stderr) == (0, "")
    assert Row.objects.using(any_alias).get().visits == 1


def test_emulator_that_others_started_is_not_emptied(db_alias, monkeypatch):
    monkeypatch.setenv("MASSMIGRATION_TEST_EMULATORS", "")
    Row.objects.using(db_alias).create()
    servers.empty_databases()
    assert Row.objects.using(db_alias).count() == 1
    monkeypatch.undo()
    servers.empty_databases()
    assert Row.objects.using(db_alias).count() == 0


START_AND_WAIT = """
import os, time
import pytest
from tests import servers
servers.start_emulators()
print(os.environ["MASSMIGRATION_TEST_EMULATORS"], flush=True)
time.sleep(600)
"""


def test_emulators_end_with_the_process_that_started_them(tmp_path):
    fresh = dict.fromkeys(
        ["DATASTORE_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "TASKS_EMULATOR_HOST", "MASSMIGRATION_TEST_EMULATORS"]
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        cwd=ROOT,
        env=get_environment({**fresh, "TMPDIR": str(tmp_path)}),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    with owner.stdout:
        ports = [int(address.rpartition(":")[2]) for address in owner.stdout.readline().split()]
        assert len(ports) == 3
        assert all(servers.is_listening(port) for port in ports)
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("massmigration-*")) or any(servers.is_listening(port) for port in ports):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_server_that_ends_while_it_starts_says_why(tmp_path):
    command = ["sh", "-c", "echo no such luck; exit 1"]
    server = processes.start("The server", 1, command, tmp_path)
    with pytest.raises(RuntimeError, match="The server ended while it started: no such luck"):
        server.wait(lambda server: False)
    server.stop()
    assert not tmp_path.exists()


class Inbox(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["X-AppEngine-TaskName"], body))
        self.send_response(200)
        self.end_headers()
        self.server.arrived.set()

    def log_message(self, *args):
        pass


@pytest.fixture
def inbox():
    with HTTPServer(("127.0.0.1", cloudtasks.get_target_port()), Inbox) as server:
        server.received, server.arrived = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_task_is_delivered_to_app_engine(inbox, tasks_client, task_queue):
    task = {"app_engine_http_request": {"relative_uri": "/work?a=1", "body": b"hello"}}
    tasks_client.create_task(parent=task_queue, task={"name": f"{task_queue}/tasks/one", **task})
    assert inbox.arrived.wait(20)
    assert inbox.received == [("/work?a=1", "one", b"hello")]


def test_task_is_delivered_to_an_http_target(inbox, tasks_client, task_queue):
    task = {"http_request": {"url": f"http://127.0.0.1:{inbox.server_port}/run", "body": b"hello"}}
    tasks_client.create_task(parent=task_queue, task=task)
    assert inbox.arrived.wait(20)
    assert inbox.received == [("/run", None, b"hello")]
