"""massmigration VERB: each verb, what it refuses, and what it leaves in the audit trail."""

from __future__ import annotations

import datetime
import json

import pytest
from django.utils import timezone

from massmigration import api, states
from massmigration.management.verbs import VERBS
from massmigration.models import MigrationEvent, MigrationRecord
from tests.management.conftest import QUICK, get_visits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

NAMES, SLOW, FAILS = "testapp:0001_names", "testapp:0002_slow", "testapp:0004_fails"
WORDS = ["testapp", "0001"]


def get_status(key=NAMES, db_alias="default"):
    return api.get_progress(key, db_alias).status


def pause(key=NAMES):
    api.start_migration(key, enqueue=False)
    api.pause_migration(key)


def test_without_a_verb_lists_and_says_what_starts_a_run(manage):
    answer = manage("massmigration")
    assert answer.code == 0
    assert "[ ] 0001_names" in answer.output
    assert answer.output.splitlines()[-1].endswith("massmigration run APP NAME")


def test_has_the_verbs_of_the_contract():
    assert list(VERBS) == [
        "run",
        "pause",
        "resume",
        "cancel",
        "retry",
        "restart",
        "failures",
        "accept",
        "fake",
        "reset",
        "recover",
        "watch",
        "events",
    ]


class TestRun:
    def test_is_massmigrate(self, manage):
        make_cities("default", 3)
        answer = manage("massmigration", "run", *WORDS, "--actor=ada")
        assert answer.code == 0
        assert get_visits("default") == {1}
        assert MigrationEvent.objects.get(action="start").actor == "ada"


class TestPause:
    def test_pauses_and_says_how_to_go_on(self, manage):
        api.start_migration(NAMES, enqueue=False)
        answer = manage("massmigration", "pause", *WORDS, "--actor=ada")
        assert answer.code == 0
        assert f"{NAMES}  paused" in answer.output
        assert "massmigration resume testapp 0001_names" in answer.output
        event = MigrationEvent.objects.get(action="pause")
        assert (event.actor, event.origin) == ("ada", "command")
        assert get_status() == states.PAUSED

    def test_is_refused_when_it_does_not_run(self, manage):
        answer = manage("massmigration", "pause", *WORDS)
        assert (answer.code, answer.output) == (
            2,
            f"{NAMES} is not run on database 'default', so it cannot be paused. "
            "Only a migration that is enqueued or running can be paused.",
        )

    def test_of_a_record_whose_file_is_gone(self, manage):
        MigrationRecord.objects.create(key="gone:0001_x", app_label="gone", name="0001_x", status="running")
        assert manage("massmigration", "pause", "gone", "0001_x").code == 0
        assert MigrationRecord.objects.get(key="gone:0001_x").status == states.PAUSED


class TestResume:
    def test_works_in_the_foreground(self, manage, db_alias):
        make_cities(db_alias, 3)
        api.start_migration(NAMES, db_alias, enqueue=False)
        api.pause_migration(NAMES, db_alias)
        answer = manage("massmigration", "resume", *WORDS, f"--database={db_alias}", "--actor=ada")
        assert answer.code == 0
        assert "applied: 3 rows" in answer.output
        assert get_visits(db_alias) == {1}
        assert MigrationEvent.objects.using(db_alias).get(action="resume").actor == "ada"

    @pytest.mark.parametrize(
        ("words", "participle"),
        [(["resume"], "resumed"), (["retry"], "retried"), (["restart", "--noinput"], "restarted")],
    )
    def test_is_refused_when_there_is_nothing_to_resume(self, manage, words, participle):
        answer = manage("massmigration", *words, *WORDS)
        assert answer.code == 2
        assert f"{NAMES} is not run on database 'default', so it cannot be {participle}" in answer.output


class TestCancel:
    def test_gives_it_up(self, manage):
        pause()
        answer = manage("massmigration", "cancel", *WORDS)
        assert (answer.code, get_status()) == (0, states.CANCELLED)

    def test_is_refused_when_there_is_nothing_to_cancel(self, manage):
        assert manage("massmigration", "cancel", *WORDS).code == 2


class TestRetry:
    def test_tries_again_and_goes_on(self, manage):
        make_cities("default", 5)
        City.objects.create(name="Nowhere", note="bad")
        manage("massmigrate", FAILS)
        assert manage("massmigration", "retry", "testapp", "0004").code == 1
        City.objects.update(note="")
        assert manage("massmigration", "retry", "testapp", "0004").code == 0
        assert get_visits("default") == {1}

    def test_of_objects_that_were_skipped(self, manage):
        make_cities("default", 5)
        for number in range(5):
            City.objects.create(name=f"Nowhere {number}", note="bad")
        answer = manage("massmigrate", "testapp", "0008")
        assert answer.code == 1
        assert answer.output.count("  Object ") == 3
        assert "(Nowhere 0): ValueError: Nowhere 0 is bad" in answer.output
        assert "  and 2 more\n" in answer.output
        City.objects.update(note="")
        assert manage("massmigration", "retry", "testapp", "0008").code == 0
        assert get_visits("default") == {1}


class TestRestart:
    def test_visits_every_row_again(self, manage):
        make_cities("default", 3)
        manage("massmigrate", NAMES)
        assert manage("massmigration", "restart", *WORDS, "--noinput").code == 0
        assert get_visits("default") == {2}

    def test_needs_a_yes(self, manage):
        manage("massmigrate", NAMES)
        answer = manage("massmigration", "restart", *WORDS)
        assert (answer.code, answer.output) == (
            2,
            "massmigration restart has to be confirmed, but there is no terminal to ask in. Add --noinput to say yes.",
        )


class TestFake:
    def test_marks_as_applied(self, manage):
        make_cities("default", 3)
        assert manage("massmigration", "fake", *WORDS).code == 0
        assert (get_status(), get_visits("default")) == (states.APPLIED, {0})


class TestReset:
    @pytest.mark.parametrize("verb", ["reset", "delete"])
    def test_forgets_the_record_but_not_the_events(self, manage, verb):
        manage("massmigrate", NAMES)
        assert manage("massmigration", verb, *WORDS, "--no-input").code == 0
        assert get_status() == states.NOT_RUN
        assert "reset" in manage("massmigration", "events", *WORDS).output

    def test_needs_a_yes(self, manage):
        manage("massmigrate", NAMES)
        assert manage("massmigration", "reset", *WORDS).code == 2
        assert get_status() == states.APPLIED

    def test_is_refused_while_it_runs(self, manage):
        api.start_migration(NAMES, enqueue=False)
        answer = manage("massmigration", "reset", *WORDS, "--noinput")
        assert answer.code == 2
        assert "Pause or cancel it first." in answer.output

    def test_of_a_record_whose_file_is_gone(self, manage):
        MigrationRecord.objects.create(key="gone:0001_x", app_label="gone", name="0001_x", status="applied")
        assert manage("massmigration", "reset", "gone:0001_x", "--noinput").code == 0
        assert not MigrationRecord.objects.filter(key="gone:0001_x").exists()

    def test_of_such_a_record_that_is_named_by_how_it_begins(self, manage):
        for name in ("0077_x", "0078_x"):
            MigrationRecord.objects.create(key=f"testapp:{name}", app_label="testapp", name=name, status="applied")
        assert manage("massmigration", "reset", "testapp", "0077", "--noinput").code == 0
        assert [record.name for record in MigrationRecord.objects.all()] == ["0078_x"]
        assert manage("massmigration", "reset", "testapp", "0079", "--noinput").code == 2


class TestRecover:
    def stall(self, *keys):
        for key in keys:
            api.start_migration(key, enqueue=False)
        MigrationRecord.objects.update(moved_at=timezone.now() - datetime.timedelta(minutes=1))

    def test_takes_up_all_that_is_stalled(self, manage):
        make_cities("default", 3)
        self.stall(NAMES, FAILS)
        assert manage("massmigration", "recover", "--actor=cron").code == 0
        assert (get_status(), get_status(FAILS)) == (states.APPLIED, states.APPLIED)
        assert {event.actor for event in MigrationEvent.objects.filter(action="recover")} == {"cron"}

    def test_takes_up_the_one_that_is_named(self, manage):
        self.stall(NAMES, FAILS)
        assert manage("massmigration", "recover", *WORDS).code == 0
        assert (get_status(), get_status(FAILS)) == (states.APPLIED, states.ENQUEUED)

    def test_has_nothing_to_do_when_nothing_is_stalled(self, manage):
        api.start_migration(NAMES, enqueue=False)
        for words in ([], ["testapp"], WORDS):
            assert manage("massmigration", "recover", *words) == (0, "Nothing to recover.\n")

    def test_is_refused_when_it_does_not_run(self, manage):
        answer = manage("massmigration", "recover", *WORDS)
        assert answer.code == 2
        assert "Only a migration that is enqueued or running can be recovered." in answer.output


class TestWatch:
    @pytest.mark.parametrize(
        ("prepare", "code", "word"),
        [
            (lambda: None, 3, "not run"),
            (pause, 3, "paused"),
            (lambda: api.fake_migration(NAMES), 0, "applied without running it"),
        ],
    )
    def test_says_how_it_ended(self, manage, prepare, code, word):
        prepare()
        answer = manage("massmigration", "watch", *WORDS)
        assert answer.code == code
        assert f"{NAMES}  {word}" in answer.output

    def test_says_how_to_take_up_what_is_stalled(self, popen_manage):
        api.start_migration(NAMES, enqueue=False)
        MigrationRecord.objects.update(moved_at=timezone.now() - datetime.timedelta(minutes=1))
        process = popen_manage("massmigration", "watch", *WORDS, env=QUICK)
        line = process.stdout.readline()
        assert f"{NAMES}  stalled since " in line
        assert line.endswith(
            "no worker is working on it; continue with: python -m django massmigration recover testapp 0001_names\n"
        )
        api.cancel_migration(NAMES)
        assert process.wait(20) == 3


class TestEvents:
    def test_are_a_table(self, manage):
        manage("massmigrate", NAMES, "--actor=ada")
        manage("massmigrate", FAILS)
        lines = manage("massmigration", "events", *WORDS).output.splitlines()
        assert [line.split()[3] for line in lines] == ["start", "begin", "finish"]
        assert lines[0].endswith("ada (command)")
        everything = manage("massmigration", "events").output.splitlines()
        assert len(everything) == 6
        assert manage("massmigration", "events", "--limit=2").output.splitlines() == everything[-2:]
        assert manage("massmigration", "events", "testapp").output.splitlines() == everything
        assert manage("massmigration", "events", "auth").output == "No events.\n"

    def test_are_json(self, manage):
        manage("massmigrate", NAMES, "--actor=ada")
        rows = json.loads(manage("massmigration", "events", NAMES, "--format=json").output)
        assert list(rows[0]) == [
            "at",
            "key",
            "database",
            "action",
            "status",
            "actor",
            "origin",
            "attempt_uuid",
            "detail",
            "parameters",
        ]
        assert (rows[0]["key"], rows[0]["action"], rows[0]["actor"]) == (NAMES, "start", "ada")
        assert rows[0]["attempt_uuid"] == api.get_progress(NAMES).attempt_uuid

    def test_refuse_a_limit_of_none(self, manage):
        assert manage("massmigration", "events", "--limit=0").code == 2


class TestWrongUsage:
    @pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "retry", "restart", "fake", "reset", "watch"])
    @pytest.mark.parametrize("words", [[], ["testapp"]])
    def test_a_verb_without_a_name(self, manage, verb, words):
        answer = manage("massmigration", verb, *words)
        assert answer.code == 2
        assert f"massmigration {verb} needs a migration: APP NAME" in answer.output

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["pause", "testapp", "0099"], "testapp has no migration that begins with '0099'."),
            (["pause", "nowhere", "0001"], "No installed app with label 'nowhere'."),
            (["pause", "testapp", "0001", "--database=nowhere"], "There is no database 'nowhere'"),
            (["resume", "testapp", "0001", "--workers=2", "--no-wait"], "exclude each other"),
        ],
    )
    def test_is_one_sentence(self, manage, words, sentence):
        answer = manage("massmigration", *words)
        assert answer.code == 2
        assert sentence in answer.output

    @pytest.mark.parametrize("words", [["explode"], ["pause", "--workers=3", "testapp", "0001"]])
    def test_exits_with_2(self, run_manage, words):
        answer = run_manage("massmigration", *words)
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr

    def test_djangos_own_options_may_stand_behind_the_verb(self, run_manage):
        answer = run_manage("massmigration", "pause", *WORDS, "--settings=tests.jobs.settings", "--no-color", "-v", "0")
        assert answer.returncode == 2
        assert "is not run on database 'default', so it cannot be paused" in answer.stderr
