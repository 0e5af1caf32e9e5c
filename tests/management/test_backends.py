"""massmigrate where workers live elsewhere: it hands the work over and watches."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from django.db import connections

from massmigration import api, states
from massmigration.models import MigrationAttempt
from tests.jobs.backends import LosingBackend
from tests.management.conftest import get_visits, make_cities, wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

NAMES = "testapp:0001_names"


@pytest.fixture
def use_backend(settings):
    def use(name):
        settings.MASSMIGRATION_BACKEND = f"tests.jobs.backends.{name}"

    return use


def test_work_is_handed_over_and_watched(manage, use_backend, db_alias):
    use_backend("ImmediateBackend")
    make_cities(db_alias, 5)
    answer = manage("massmigrate", NAMES, "--database", db_alias, "--workers=2")
    assert answer.code == 0
    assert f"{NAMES}: its workers are those of its backend, so --workers has no effect." in answer.output
    assert "applied: 5 rows" in answer.output
    assert get_visits(db_alias) == {1}


def test_work_that_the_queue_lost_is_handed_over_again(manage, use_backend, settings):
    settings.MASSMIGRATION_WATCH_SECONDS = 0.2
    use_backend("LosingBackend")
    LosingBackend.lost.clear()
    make_cities("default", 5)
    assert manage("massmigrate", NAMES).code == 0
    assert len(LosingBackend.lost) == 1
    assert [event.action for event in api.get_events(NAMES)] == ["start", "recover", "begin", "finish"]


def test_without_waiting(manage, use_backend):
    use_backend("SilentBackend")
    answer = manage("massmigrate", NAMES, "--no-wait")
    assert answer.code == 0
    assert f"{NAMES}  enqueued in the background\n  To watch it: " in answer.output


def test_without_waiting_a_changed_file_is_told(manage, use_backend):
    use_backend("SilentBackend")
    api.start_migration(NAMES, enqueue=False)
    api.pause_migration(NAMES)
    MigrationAttempt.objects.update(source_hash="another")
    answer = manage("massmigration", "resume", NAMES, "--no-wait")
    assert answer.code == 0
    assert "  Warning: The file was changed during the run" in answer.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [["massmigrate"], ["massmigration", "watch"]])
def test_a_signal_only_ends_the_watching(manage, use_backend, number, code, words):
    use_backend("SilentBackend")
    if "watch" in words:
        api.start_migration(NAMES)
    before = signal.getsignal(number)

    def send():
        wait_until(lambda: signal.getsignal(number) != before)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    answer = manage(*words, "testapp", "0001")
    thread.join()
    assert answer.code == code
    assert api.get_progress(NAMES).status == states.ENQUEUED
    assert signal.getsignal(number) == before


def test_a_command_in_a_thread_leaves_signals_alone(manage):
    before = signal.getsignal(signal.SIGINT)
    answers = []

    def run():
        answers.append(manage("massmigrate", NAMES))

        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert answers[0].code == 0
    assert signal.getsignal(signal.SIGINT) == before
