"""The commands on Datastore and Firestore, in this process and with worker processes of their own, and the API."""

from __future__ import annotations

import io
import json
import signal
import time
from typing import NamedTuple

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from massmigration import api, recorder
from massmigration.engine.leases import claim
from massmigration.exceptions import IllegalMove, WaitTimedOut
from massmigration.models import MigrationEvent
from tests.cloud.app.models import Row
from tests.cloud.support import get_visits, make_rows, quick, traffic  # noqa: F401

SIMPLE, MAPPER, SAVES, BATCH, CUSTOM = KEYS = [
    "cloudapp:0001_simple",
    "cloudapp:0002_mapper",
    "cloudapp:0003_saves",
    "cloudapp:0004_batch",
    "cloudapp:0005_custom",
]


class Answer(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    output: str


@pytest.fixture(autouse=True)
def files(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": None, "adminapp": None}


@pytest.fixture
def manage():
    """Run a command in this process."""

    def run(*args: str) -> Answer:
        out = io.StringIO()
        try:
            call_command(*args, stdout=out, stderr=out, no_color=True)
        except CommandError as error:
            return Answer(error.returncode, f"{out.getvalue()}{error}")
        except SystemExit as end:
            return Answer(int(end.code or 0), out.getvalue())
        return Answer(0, out.getvalue())

    return run


@pytest.fixture
def quickly(run_manage):
    """Run a command in another process."""

    def run(*args: str, seconds: float = 0.01):
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.cloud.quick",
            "MASSMIGRATION_TEST_BATCH_SECONDS": str(seconds),
        }
        return run_manage(*args, env=environment, timeout=120)

    return run


class TestProcesses:
    def test_two_workers_of_their_own_visit_every_row_once(self, db_alias, quickly):
        make_rows(db_alias, 160)
        done = quickly("massmigrate", MAPPER, f"--database={db_alias}", "--workers=2", seconds=0.05)
        assert (done.returncode, done.stderr) == (0, "")
        assert "applied: 160 rows, 160 changed" in done.stdout
        assert get_visits(db_alias) == {1: 160}
        record = recorder.get_record(MAPPER, db_alias)
        ranges = [shard for shard in recorder.get_shards(record.attempt_uuid, db_alias) if shard.kind == "range"]
        assert sum(shard.processed for shard in ranges) == 160

    def test_all_that_is_pending_runs_on_one_database(self, db_alias, quickly):
        make_rows(db_alias, 30)
        done = quickly("massmigrate", f"--database={db_alias}", "--noinput")
        assert (done.returncode, done.stderr) == (0, "")
        assert get_visits(db_alias) == {5: 30}
        rows = json.loads(quickly("showmassmigrations", "--format=json").stdout)
        applied = {row["key"] for row in rows if row["database"] == db_alias and row["status"] == "applied"}
        assert applied == set(KEYS)
        assert {row["status"] for row in rows if row["database"] != db_alias} == {"not_run"}

    def test_a_person_stops_it_and_another_command_goes_on(self, db_alias, popen_manage, quickly):
        make_rows(db_alias, 240)
        environment = {"DJANGO_SETTINGS_MODULE": "tests.cloud.quick", "MASSMIGRATION_TEST_BATCH_SECONDS": "0.2"}
        process = popen_manage("massmigrate", SAVES, f"--database={db_alias}", env=environment)
        deadline = time.monotonic() + 60
        while not Row.objects.using(db_alias).filter(visits=1).exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        progress = api.get_progress(SAVES, db_alias)
        assert (progress.status, progress.workers_alive) == ("paused", 0)
        assert progress.processed == get_visits(db_alias)[1] < 240
        done = quickly("massmigrate", SAVES, f"--database={db_alias}")
        assert (done.returncode, done.stderr) == (0, "")
        assert get_visits(db_alias) == {1: 240}

    def test_a_click_starts_a_process_that_works_on_its_own(self, db_alias, settings, quickly):
        make_rows(db_alias, 60)
        done = quickly("massmigrate", MAPPER, f"--database={db_alias}", "--no-wait")
        assert (done.returncode, done.stderr) == (0, "")
        assert api.wait_for_migration(MAPPER, db_alias, timeout=90).status == "applied"
        assert get_visits(db_alias) == {1: 60}


@pytest.mark.parametrize("key", KEYS)
def test_massmigrate_applies_each_kind(db_alias, manage, key):
    make_rows(db_alias, 50)
    answer = manage("massmigrate", key, f"--database={db_alias}", "--actor=ada")
    assert answer.code == 0, answer.output
    assert "applied" in answer.output
    assert get_visits(db_alias) == {1: 50}
    assert manage("massmigrate", key, f"--database={db_alias}").output == (
        f"Nothing to do: {key} is applied on database '{db_alias}'.\n"
    )


def test_show_tells_what_is_on_each_database(db_alias, manage):
    make_rows(db_alias, 30)
    manage("massmigrate", MAPPER, f"--database={db_alias}", "--actor=ada")
    answer = manage("showmassmigrations", "--format=json", f"--database={db_alias}")
    rows = {row["key"]: row for row in json.loads(answer.output)}
    assert list(rows) == KEYS
    row = rows[MAPPER]
    assert (row["status"], row["processed"], row["changed"], row["failed"]) == ("applied", 30, 30, 0)
    assert (row["total"], row["shards"], row["shards_done"], row["started_by"]) == (30, 4, 4, "ada")
    assert (row["workers_alive"], row["stalled"], row["error"]) == (0, False, None)
    assert rows[SIMPLE]["status"] == "not_run"
    text = manage("showmassmigrations", f"--database={db_alias}").output
    assert "[X] 0002_mapper" in text and "[ ] 0001_simple" in text
    assert manage("showmassmigrations", "--check", f"--database={db_alias}").code == 1


def test_every_verb(db_alias, manage):
    make_rows(db_alias, 30)
    words, alias = ["cloudapp", "0002"], f"--database={db_alias}"

    def do(verb: str, *options: str, status: str, code: int = 0) -> str:
        answer = manage("massmigration", verb, *words, alias, "--actor=ada", *options)
        assert answer.code == code, answer.output
        assert api.get_progress(MAPPER, db_alias).status == status
        return answer.output

    assert "cannot be paused" in do("pause", status="not_run", code=2)
    api.start_migration(MAPPER, db_alias, enqueue=False)
    assert "paused" in do("pause", status="paused")
    assert "applied: 30 rows" in do("resume", status="applied")
    assert get_visits(db_alias) == {1: 30}
    Row.objects.using(db_alias).update(flag=False)
    assert "applied: 30 rows" in do("restart", "--noinput", status="applied")
    assert get_visits(db_alias) == {2: 30}
    do("reset", "--noinput", status="not_run")
    do("fake", status="applied")
    do("reset", "--noinput", status="not_run")
    api.start_migration(MAPPER, db_alias, enqueue=False)
    do("cancel", status="cancelled")
    do("run", status="applied")
    answer = manage("massmigration", "events", *words, alias)
    assert answer.code == 0
    actions = [event.action for event in reversed(MigrationEvent.objects.using(db_alias).order_by("pk"))]
    assert [line for line in actions if line not in ("begin", "finish")] == [
        "start", "pause", "resume", "restart", "reset", "fake", "reset", "start", "cancel", "start",
    ]  # fmt: skip
    positions = [answer.output.index(word) for word in ("restart", "fake", "cancel")]
    assert positions == sorted(positions) and "ada" in answer.output


def test_recover_goes_on_with_what_a_crash_left_behind(db_alias, manage, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.2
    make_rows(db_alias, 30)
    record = api.start_migration(SAVES, db_alias, enqueue=False)
    [plan] = recorder.get_shards(record.attempt_uuid, db_alias)
    assert claim(plan, api.get_migration(SAVES), db_alias, "dead")
    deadline = time.monotonic() + 20
    while not api.get_progress(SAVES, db_alias).stalled:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    settings.MASSMIGRATION_LEASE_SECONDS = 60
    answer = manage("massmigration", "recover", "cloudapp", "0003", f"--database={db_alias}")
    assert answer.code == 0, answer.output
    assert api.get_progress(SAVES, db_alias).status == "applied"
    assert get_visits(db_alias) == {1: 30}


def test_a_failed_migration_is_shown_and_retried(db_alias, manage, monkeypatch):
    make_rows(db_alias, 30)
    definition = type(api.get_migration(MAPPER))
    operation = definition.operation

    def fail(self, row, db_alias):
        if row.name == "row 7":
            raise ValueError("row 7 is bad")
        operation(self, row, db_alias)

    monkeypatch.setattr(definition, "operation", fail)
    answer = manage("massmigrate", MAPPER, f"--database={db_alias}")
    assert answer.code == 1
    assert "ValueError: row 7 is bad" in answer.output
    assert f"massmigration retry cloudapp 0002_mapper --database={db_alias}" in answer.output
    [failure] = api.get_failures(MAPPER, db_alias)
    assert (failure.object_repr, failure.status) == ("row 7", "open")
    monkeypatch.undo()
    assert manage("massmigration", "retry", "cloudapp", "0002", f"--database={db_alias}").code == 0
    assert get_visits(db_alias) == {1: 30}


class TestApi:
    def test_the_whole_life_of_a_migration(self, db_alias):
        make_rows(db_alias, 20)
        assert api.get_record(MAPPER, db_alias) is None
        assert not api.migration_is_applied(MAPPER, db_alias)
        assert api.start_migration(MAPPER, db_alias, actor="ada", enqueue=False).status == "enqueued"
        with pytest.raises(IllegalMove, match=f"{MAPPER} is already enqueued on database '{db_alias}'"):
            api.start_migration(MAPPER, db_alias, enqueue=False)
        with pytest.raises(WaitTimedOut):
            api.wait_for_migration(MAPPER, db_alias, timeout=0.1)
        assert api.pause_migration(MAPPER, db_alias).status == "paused"
        assert api.resume_migration(MAPPER, db_alias, enqueue=False).status == "running"
        assert api.recover_migration(MAPPER, db_alias, enqueue=False).status == "running"
        assert api.cancel_migration(MAPPER, db_alias).status == "cancelled"
        assert api.restart_migration(MAPPER, db_alias, enqueue=False).status == "enqueued"
        assert api.get_progress(MAPPER, db_alias).processed == 0
        api.cancel_migration(MAPPER, db_alias)
        assert api.fake_migration(MAPPER, db_alias).status == "applied"
        assert api.migration_is_applied(MAPPER, db_alias)
        api.reset_migration(MAPPER, db_alias)
        assert api.get_record(MAPPER, db_alias) is None
        assert [event.action for event in api.get_events(MAPPER, db_alias)] == [
            "start", "pause", "resume", "recover", "cancel", "restart", "cancel", "fake", "reset",
        ]  # fmt: skip
        assert api.get_events(MAPPER, db_alias)[0].actor == "ada"

    def test_what_is_on_one_database_is_not_on_another(self, db_alias):
        api.fake_migration(MAPPER, db_alias)
        found = {(row.key, row.database): row.status for row in api.get_all_progress()}
        others = {alias for key, alias in found if key == MAPPER} - {db_alias}
        assert others >= {"default"}
        assert found[MAPPER, db_alias] == "applied"
        assert {found[MAPPER, alias] for alias in others} == {"not_run"}

    def test_the_rows_are_counted_before_a_start(self, db_alias):
        make_rows(db_alias, 17)
        preparation = api.get_preparation(MAPPER, db_alias)
        assert (preparation.rows, preparation.rows_are_estimated, preparation.rows_error) == (17, False, "")
