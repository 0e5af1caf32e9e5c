"""massmigrate in real processes: signals, crashes, several workers, detached ones, and terminals."""

from __future__ import annotations

import getpass
import json
import os
import re
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from massmigration import api, states
from massmigration.management.display import Display
from massmigration.management.work import Work
from massmigration.models import MigrationEvent, MigrationShard
from tests.management.conftest import (
    QUICK,
    finish,
    get_visits,
    make_cities,
    wait_for_rows,
    wait_until,
)
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

SLOW, LONG = "testapp:0002_slow", "testapp:0007_long"
COUNT = 200


def get_live_workers(db_alias):
    running = MigrationShard.objects.using(db_alias).filter(status=MigrationShard.RUNNING)
    return {shard.worker for shard in running if shard.worker}


@pytest.fixture
def manage_quickly(manage, monkeypatch):
    """Run a command in this process that need not be watched at its work."""

    def run(*args):
        with monkeypatch.context() as context:
            context.setenv("MASSMIGRATION_TEST_QUICKLY", "1")
            return manage(*args)

    return run


@pytest.fixture
def wait_for_operation(tmp_path, monkeypatch):
    """Return what waits until the operation of ``LONG`` has begun: before that a first Ctrl-C already ends the run."""
    begun = tmp_path / "begun"
    monkeypatch.setenv("MASSMIGRATION_TEST_BEGUN", str(begun))
    return lambda: wait_until(begun.exists)


class TestInterrupt:
    def test_pauses_after_the_batch_in_hand_and_says_how_to_go_on(self, spawn, manage_quickly, db_alias):
        make_cities(db_alias, COUNT)
        process = spawn("massmigrate", SLOW, "--database", db_alias)
        wait_for_rows(SLOW, db_alias)
        process.send_signal(signal.SIGINT)
        answer = finish(process)
        assert answer.code == 130
        progress = api.get_progress(SLOW, db_alias)
        assert progress.status == states.PAUSED
        assert progress.processed in range(1, COUNT)
        assert progress.workers_alive == 0
        assert "Finishing the batch in hand." in answer.output
        option = "" if db_alias == "default" else f" --database={db_alias}"
        command = f"massmigration resume testapp 0002_slow{option}"
        assert f"To resume it: python -m django {command}\n" in answer.output

        again = manage_quickly(*command.split())
        assert again.code == 0, again.output
        assert get_visits(db_alias) == {1}

    def test_a_second_one_stops_at_once(self, spawn, db_alias, wait_for_operation):
        make_cities(db_alias, 3)
        City.objects.using(db_alias).create(name="long")
        process = spawn("massmigrate", LONG, "--database", db_alias)
        wait_for_operation()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # the operation is one transaction, which it tries to finish
        process.send_signal(signal.SIGINT)
        answer = finish(process, 10)
        assert answer.code == 130
        assert api.get_progress(LONG, db_alias).status == states.PAUSED
        assert get_visits(db_alias) == {0}
        assert "Traceback" not in answer.output

    def test_more_of_them_do_not_keep_it_from_being_paused_and_told(self, manage, monkeypatch):
        make_cities("default", 3)
        pause = Work.pause

        def interrupt(*args):
            signal.raise_signal(signal.SIGINT)

        def work(self):
            interrupt()
            interrupt()

        monkeypatch.setattr(Work, "work", work)
        monkeypatch.setattr(Work, "pause", lambda self: [interrupt(), pause(self), interrupt()])
        monkeypatch.setattr(Display, "end", interrupt)
        answer = manage("massmigrate", SLOW)
        assert answer.code == 130
        assert api.get_progress(SLOW).status == states.PAUSED
        assert "To resume it: " in answer.output

    @pytest.mark.needs_postgres
    def test_only_stops_watching_while_others_work(self, spawn):
        make_cities("postgres", 400)
        first = spawn("massmigrate", SLOW, "--database=postgres")
        wait_for_rows(SLOW, "postgres")
        second = spawn("massmigrate", SLOW, "--database=postgres")
        wait_until(lambda: len({worker.split(":")[1] for worker in get_live_workers("postgres")}) == 2)
        second.send_signal(signal.SIGINT)
        answer = finish(second)
        assert answer.code == 130
        assert "continues, because other workers are working on it" in answer.output
        assert "massmigration pause testapp 0002_slow --database=postgres" in answer.output
        assert finish(first).code == 0
        assert get_visits("postgres") == {1}

    def test_does_not_touch_a_worker_process(self, spawn):
        make_cities("default", 50)
        attempt_uuid = api.start_migration(SLOW, enqueue=False).attempt_uuid
        process = spawn("massmigrate", SLOW, f"--attempt={attempt_uuid}")
        wait_for_rows(SLOW, "default")
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0
        assert get_visits("default") == {1}


class TestTermination:
    @pytest.mark.parametrize(
        ("db_alias", "number"),
        [("default", signal.SIGTERM), pytest.param("postgres", signal.SIGHUP, marks=pytest.mark.needs_postgres)],
    )
    def test_finishes_the_batch_and_leaves_the_record_running(self, spawn, manage_quickly, db_alias, number):
        make_cities(db_alias, COUNT)
        process = spawn("massmigrate", SLOW, "--database", db_alias)
        wait_for_rows(SLOW, db_alias)
        process.send_signal(number)
        answer = finish(process)
        assert answer.code == 143
        progress = api.get_progress(SLOW, db_alias)
        assert progress.status == states.RUNNING
        assert progress.workers_alive == 0
        assert progress.processed in range(1, COUNT)
        assert "stays running" in answer.output

        assert get_live_workers(db_alias) == set()  # so that no lease has to run out

        again = manage_quickly("massmigrate", SLOW, "--database", db_alias)
        assert again.code == 0, again.output
        assert get_visits(db_alias) == {1}

    def test_a_hang_up_is_ignored_under_nohup(self, popen_manage):
        make_cities("default", 50)
        process = popen_manage(
            "massmigrate", SLOW, env=QUICK, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
        )
        wait_for_rows(SLOW, "default")
        process.send_signal(signal.SIGHUP)
        assert finish(process).code == 0

    def test_a_reader_that_goes_away_disturbs_nothing(self, spawn):
        make_cities("default", 100)
        process = spawn("massmigrate", SLOW)
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=40) == 0
        assert api.get_progress(SLOW).status == states.APPLIED
        assert get_visits("default") == {1}


class TestCrash:
    @pytest.mark.needs_postgres
    def test_is_shown_as_stalled_and_taken_up_by_the_next_massmigrate(self, spawn, manage_quickly):
        db_alias = "postgres"
        make_cities(db_alias, COUNT)
        process = spawn("massmigrate", SLOW, "--database", db_alias)
        wait_for_rows(SLOW, db_alias)
        process.kill()
        process.wait()
        wait_until(lambda: api.get_progress(SLOW, db_alias).stalled)
        listed = manage_quickly("showmassmigrations", "testapp", f"--database={db_alias}")
        assert re.search(
            r"\[ \] 0002_slow +running, stalled since \d\d:\d\d:\d\d: no worker is working on it", listed.output
        )

        again = manage_quickly("massmigrate", SLOW, "--database", db_alias)
        assert again.code == 0, again.output
        assert get_visits(db_alias) == {1}
        assert MigrationEvent.objects.using(db_alias).filter(action="recover").count() == 1

    def test_is_taken_up_at_once_and_waits_for_the_lease(self, spawn, manage_quickly, db_alias):
        make_cities(db_alias, COUNT)
        process = spawn("massmigrate", SLOW, "--database", db_alias)
        wait_for_rows(SLOW, db_alias)
        process.kill()
        process.wait()
        again = manage_quickly("massmigrate", SLOW, "--database", db_alias)
        assert again.code == 0, again.output
        assert get_visits(db_alias) == {1}

    def test_is_taken_up_by_recover_without_a_name(self, spawn, manage_quickly):
        make_cities("default", COUNT)
        process = spawn("massmigrate", SLOW)
        wait_for_rows(SLOW, "default")
        process.kill()
        process.wait()
        wait_until(lambda: api.get_progress(SLOW).stalled)
        again = manage_quickly("massmigration", "recover")
        assert again.code == 0, again.output
        assert get_visits("default") == {1}
        assert manage_quickly("massmigration", "recover").output == "Nothing to recover.\n"


class TestWorkers:
    @pytest.mark.needs_postgres
    def test_share_the_work_and_are_replaced_when_they_die(self, spawn):
        make_cities("postgres", 800)
        process = spawn("massmigrate", SLOW, "--database=postgres", "--workers=2")
        wait_until(lambda: len({worker.split(":")[1] for worker in get_live_workers("postgres")}) == 2)
        victim = int(next(iter(get_live_workers("postgres"))).split(":")[1])
        assert victim != process.pid
        os.kill(victim, signal.SIGKILL)
        answer = finish(process)
        assert answer.code == 0, answer.output
        assert f"Worker process {victim} was killed by SIGKILL; another one is started." in answer.output
        assert "applied: 800 rows, 800 changed" in answer.output
        assert get_visits("postgres") == {1}

    @pytest.mark.needs_postgres
    @pytest.mark.parametrize(
        ("number", "code", "status"),
        [(signal.SIGINT, 130, states.PAUSED), (signal.SIGTERM, 143, states.RUNNING)],
    )
    def test_end_with_their_parent(self, spawn, number, code, status):
        make_cities("postgres", 800)
        process = spawn("massmigrate", SLOW, "--database=postgres", "--workers=2")
        wait_until(lambda: len({worker.split(":")[1] for worker in get_live_workers("postgres")}) == 2)
        pids = [int(worker.split(":")[1]) for worker in get_live_workers("postgres")]
        process.send_signal(number)
        answer = finish(process)
        assert answer.code == code
        progress = api.get_progress(SLOW, "postgres")
        assert (progress.status, progress.workers_alive) == (status, 0)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    def test_are_one_on_sqlite(self, run_manage):
        make_cities("default", 20)
        answer = run_manage("massmigrate", SLOW, "--workers=3", env=QUICK)
        assert answer.returncode == 0
        assert f"{SLOW}: database 'default' lets one process write at a time; using 1 worker." in answer.stdout
        assert get_visits("default") == {1}


class TestNoWait:
    @pytest.mark.needs_postgres
    def test_leaves_a_process_behind_that_finishes(self, run_manage, manage):
        db_alias = "postgres"
        make_cities(db_alias, 100)
        answer = run_manage("massmigrate", SLOW, "--no-wait", "--database", db_alias, env=QUICK)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert SLOW in answer.stdout
        log = Path(answer.stdout.partition("Log: ")[2].partition("\n")[0])
        assert "To watch it: python -m django massmigration watch testapp 0002_slow" in answer.stdout

        watched = manage("massmigration", "watch", "testapp", "0002_slow", f"--database={db_alias}")
        assert watched.code == 0
        assert "applied: 100 rows" in watched.output
        assert get_visits(db_alias) == {1}

        wait_until(lambda: "applied: 100 rows" in log.read_text())

    def test_says_what_has_to_come_first(self, run_manage):
        make_cities("default", 20)
        answer = run_manage("massmigrate", "testapp", "0003", "--no-wait", env=QUICK)
        assert answer.returncode == 3
        assert f"testapp:0003_after_slow  blocked: {SLOW} has to be applied first" in answer.stdout
        wait_until(lambda: api.get_progress(SLOW).status == states.APPLIED)


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def read_until(self, wanted: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65_536).decode(errors="replace")


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    os.close(terminal.ours)
    os.close(terminal.theirs)


@pytest.fixture
def type_at(spawn, terminal):
    def start(*args):
        ends = {"stdin": terminal.theirs, "stdout": terminal.theirs, "stderr": terminal.theirs}
        return spawn(*args, **ends)

    return start


class TestTerminal:
    @pytest.fixture(autouse=True)
    def terminal_kind(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")

    def test_shows_a_bar(self, type_at, terminal):
        make_cities("default", 100)
        process = type_at("massmigrate", SLOW)
        terminal.read_until("applied")
        assert process.wait(30) == 0
        assert "━━━" in terminal.text
        assert re.search(r"\d+ of 100 rows \(\d+ %\)", terminal.text)
        assert re.search(r"rows/s, .* left, \d of \d key ranges", terminal.text)

    @pytest.mark.parametrize(("typed", "code", "status"), [("y", 0, states.APPLIED), ("", 3, states.NOT_RUN)])
    def test_asks_before_everything(self, type_at, terminal, typed, code, status):
        process = type_at("massmigrate")
        terminal.read_until("Continue? [y/N]")
        terminal.type(f"{typed}\n")
        terminal.read_until("0008_skips" if typed else "Nothing was changed.")
        wait_until(lambda: process.poll() is not None)
        assert process.returncode == code
        assert api.get_progress(SLOW).status == status

    def test_an_interrupt_at_the_question_changes_nothing(self, type_at, terminal):
        process = type_at("massmigrate")
        terminal.read_until("Continue? [y/N]")
        for _ in range(10):  # one that comes before input() reads is noted by Python at the next key only
            process.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                terminal.read_until("Nothing was changed.", seconds=1)
                break
        assert process.wait(30) == 130
        assert api.get_progress(SLOW).status == states.NOT_RUN

    def test_says_in_the_bar_that_it_is_about_to_stop(self, type_at, terminal, wait_for_operation):
        make_cities("default", 5)
        City.objects.create(name="long")
        process = type_at("massmigrate", LONG)
        wait_for_operation()
        process.send_signal(signal.SIGINT)
        terminal.read_until("Press Ctrl-C again to stop at once.")
        process.send_signal(signal.SIGINT)
        terminal.read_until("paused")
        assert process.wait(30) == 130


def test_json_tells_of_a_run_in_another_process(spawn, manage, db_alias):
    count = 5 * COUNT  # or it could end before we look
    make_cities(db_alias, count)
    process = spawn("massmigrate", SLOW, "--database", db_alias)
    wait_for_rows(SLOW, db_alias)
    row: dict[str, Any] = {"workers_alive": 0}
    for _ in range(10):  # between two shards it holds none
        if row["workers_alive"] == 0:
            answer = manage("showmassmigrations", "testapp", "--format=json", f"--database={db_alias}")
            row = next(row for row in json.loads(answer.output) if row["key"] == SLOW)
    process.kill()
    assert (row["status"], row["workers_alive"], row["stalled"], row["database"]) == ("running", 1, False, db_alias)
    assert 0 < row["processed"] <= row["total"] == count
    assert row["started_by"] == getpass.getuser()
