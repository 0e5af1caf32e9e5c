"""massmigrate: what it applies, joins, takes up, leaves alone and refuses, each with its exit code."""

from __future__ import annotations

import uuid

import pytest

from massmigration import api, states
from massmigration.models import MigrationEvent
from tests.management.conftest import QUICK, get_visits, make_cities
from tests.testapp.models import City
from tests.throwaway import simple

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

NAMES, SLOW, AFTER_SLOW, FAILS = (
    "testapp:0001_names",
    "testapp:0002_slow",
    "testapp:0003_after_slow",
    "testapp:0004_fails",
)


def get_status(key, db_alias="default"):
    return api.get_progress(key, db_alias).status


class TestOneMigration:
    def test_applies_it_and_says_what_it_did(self, manage, db_alias):
        make_cities(db_alias, 300)
        answer = manage("massmigrate", "testapp", "0001_names", "--database", db_alias)
        assert answer.code == 0
        assert "applied: 300 rows, 300 changed, " in answer.output
        assert get_visits(db_alias) == {1}

    @pytest.mark.parametrize("words", [["testapp:0001_names"], ["testapp", "0001"], ["testapp:0001"]])
    def test_may_be_named_by_key_or_prefix(self, manage, words):
        assert manage("massmigrate", *words).code == 0
        assert get_status(NAMES) == states.APPLIED

    def test_keeps_who_did_it(self, manage):
        manage("massmigrate", NAMES, "--actor", "ada")
        event = MigrationEvent.objects.get(action="start")
        assert (event.actor, event.origin) == ("ada", "command")

    def test_applies_dependencies_first(self, manage):
        make_cities("default", 20)
        answer = manage("massmigrate", AFTER_SLOW)
        assert answer.code == 0
        assert answer.output.index(f"{SLOW}  applied") < answer.output.index(f"{AFTER_SLOW}  applied")
        assert "Takes its time." in answer.output  # the author's notes for the operator

    def test_is_nothing_to_do_when_applied(self, manage):
        manage("massmigrate", NAMES)
        answer = manage("massmigrate", NAMES)
        assert (answer.code, answer.output) == (0, f"Nothing to do: {NAMES} is applied on database 'default'.\n")

    def test_shows_the_warning_of_a_run_that_changed_nothing(self, manage):
        make_cities("default", 5)
        answer = manage("massmigrate", "testapp", "0006_same")
        assert answer.code == 0
        assert "Warning: No row was changed" in answer.output

    def test_shows_error_object_and_command_of_a_failure(self, manage, db_alias):
        make_cities(db_alias, 5)
        bad = City.objects.using(db_alias).create(name="Nowhere", note="bad")
        answer = manage("massmigrate", FAILS, "--database", db_alias)
        assert answer.code == 1
        assert "failed" in answer.output
        assert (
            f"after 5 of 6 rows (83 %): ValueError: Nowhere is bad (object 'Nowhere' with key {bad.pk})\n"
            in answer.output
        )
        option = "" if db_alias == "default" else f" --database={db_alias}"
        assert f"massmigration retry testapp 0004_fails{option}\n" in answer.output

    def test_retries_what_failed_when_named(self, manage):
        make_cities("default", 5)
        City.objects.create(name="Nowhere", note="bad")
        manage("massmigrate", FAILS)
        City.objects.update(note="")
        assert manage("massmigrate", FAILS).code == 0
        assert get_visits("default") == {1}

    def test_resumes_what_was_paused_when_named(self, manage):
        make_cities("default", 5)
        api.start_migration(NAMES, enqueue=False)
        api.pause_migration(NAMES)
        assert manage("massmigrate", NAMES).code == 0
        assert get_visits("default") == {1}

    def test_starts_what_was_cancelled_when_named(self, manage):
        api.start_migration(NAMES, enqueue=False)
        api.cancel_migration(NAMES)
        assert manage("massmigrate", NAMES).code == 0

    def test_joins_what_was_started_elsewhere(self, manage):
        make_cities("default", 5)
        attempt_uuid = api.start_migration(NAMES, enqueue=False).attempt_uuid
        assert manage("massmigrate", NAMES).code == 0
        assert api.get_progress(NAMES).attempt_uuid == str(attempt_uuid)

    def test_a_dependency_that_fails_blocks_it(self, manage):
        City.objects.create(name="Nowhere", note="bad")
        answer = manage("massmigrate", "testapp", "0005")
        assert answer.code == 1
        assert f"testapp:0005_after_fails  blocked: {FAILS} has to be applied first" in answer.output

    def test_a_refusal_of_the_author_is_one_sentence(self, manage, other_app):
        text = simple().replace(
            "    def operation",
            "    def before_start(self, db_alias):\n        raise ValueError('not on Mondays')\n\n    def operation",
        )
        other_app.make_app("shops", {"0001_first.py": text})
        answer = manage("massmigrate", "shops", "0001")
        assert (answer.code, answer.output) == (
            1,
            "shops:0001_first was not started on database 'default': ValueError: not on Mondays",
        )

    def test_a_missing_schema_migration_blocks_it(self, manage, other_app):
        text = simple() + "\n    schema_dependencies = [('testapp', '9999_later')]\n"
        other_app.make_app("shops", {"0001_first.py": text})
        answer = manage("massmigrate", "shops", "0001")
        assert answer.code == 3
        assert "needs testapp.9999_later" in answer.output

    def test_is_quiet_when_asked_to(self, manage):
        answer = manage("massmigrate", NAMES, "-v", "0")
        assert answer.code == 0
        assert "starting" not in answer.output

    def test_on_several_databases(self, manage, needs_two):
        assert manage("massmigrate", NAMES, "--all-databases").code == 0
        assert [get_status(NAMES, alias) for alias in needs_two] == [states.APPLIED] * len(needs_two)

    @pytest.mark.needs_postgres
    def test_on_the_databases_that_are_given(self, manage):
        assert manage("massmigrate", NAMES, "--database", "postgres", "--database", "default").code == 0
        assert get_status(NAMES) == get_status(NAMES, "postgres") == states.APPLIED


@pytest.fixture
def needs_two(settings):
    return list(settings.DATABASES)


class TestWhatIsPending:
    def test_of_an_app_is_applied_without_a_question(self, manage):
        make_cities("default", 5)
        assert manage("massmigrate", "testapp").code == 0
        assert {progress.status for progress in api.get_all_progress(["default"])} == {states.APPLIED}

    def test_of_an_app_includes_what_it_depends_on(self, manage, other_app):
        other_app.make_app("shops", {"0001_first.py": simple(("testapp", "0001_names"))})
        assert manage("massmigrate", "shops").code == 0
        assert get_status(NAMES) == states.APPLIED
        assert get_status(SLOW) == states.NOT_RUN

    def test_of_all_apps_is_shown_and_needs_a_yes(self, manage):
        make_cities("default", 5)
        answer = manage("massmigrate")
        assert answer.code == 2
        assert "Pending on database 'default':" in answer.output
        assert f"{NAMES}  start, 5 rows, Write every name in capitals." in answer.output
        assert answer.output.endswith("no terminal to ask in. Add --noinput to say yes.")
        assert get_status(NAMES) == states.NOT_RUN

    def test_of_all_apps_runs_with_noinput(self, manage):
        assert manage("massmigrate", "--no-input").code == 0
        assert get_status(FAILS) == states.APPLIED
        assert manage("massmigrate").output == "Nothing to do: every mass migration is applied on database 'default'.\n"

    def test_leaves_alone_what_a_person_paused(self, manage):
        api.start_migration(SLOW, enqueue=False)
        api.pause_migration(SLOW)
        answer = manage("massmigrate", "testapp")
        assert answer.code == 3
        assert f"{SLOW}  paused, left alone\n" in answer.output
        assert "massmigration resume testapp 0002_slow" in answer.output
        assert f"{AFTER_SLOW}  blocked: {SLOW} has to be applied first" in answer.output
        assert get_status(SLOW) == states.PAUSED
        assert get_status(NAMES) == states.APPLIED  # does not depend on it

    def test_leaves_alone_what_a_person_cancelled(self, manage):
        api.start_migration(SLOW, enqueue=False)
        api.cancel_migration(SLOW)
        answer = manage("massmigrate", "testapp")
        assert (answer.code, get_status(SLOW)) == (3, states.CANCELLED)

    def test_leaves_alone_what_failed(self, manage):
        City.objects.create(name="Nowhere", note="bad")
        assert manage("massmigrate", "testapp").code == 1
        answer = manage("massmigrate", "testapp")
        assert answer.code == 1
        assert f"{FAILS}  failed, left alone: ValueError: NOWHERE is bad" in answer.output

    def test_a_broken_file_keeps_nothing_else_back(self, manage, other_app):
        files = {"0001_broken.py": "import nothing_like_it\n", "0002_good.py": simple()}
        other_app.make_app("shops", files)
        answer = manage("massmigrate", "shops")
        assert answer.code == 1
        assert "shops:0001_broken  broken, left alone: " in answer.output
        assert get_status("shops:0002_good") == states.APPLIED


class TestPlan:
    def test_changes_nothing(self, manage):
        make_cities("default", 5)
        answer = manage("massmigrate", AFTER_SLOW, "--plan")
        assert answer.code == 0
        assert answer.output == (
            "Pending on database 'default':\n"
            f"  {SLOW}  start, 5 rows, Visit every city slowly, so that there is time to send a signal.\n"
            f"  {AFTER_SLOW}  start, 5 rows, Set the flag of all cities.\n"
        )
        assert api.get_record(SLOW) is None

    def test_says_what_happens_to_the_others(self, manage):
        api.start_migration(NAMES, enqueue=False)
        api.pause_migration(NAMES)
        assert f"{NAMES}  paused, left alone\n" in manage("massmigrate", "--plan").output
        assert f"{NAMES}  resume, " in manage("massmigrate", NAMES, "--plan").output


class TestFake:
    def test_marks_as_applied_without_running(self, manage):
        make_cities("default", 5)
        answer = manage("massmigrate", AFTER_SLOW, "--fake")
        assert answer.code == 0
        assert f"{SLOW}  applied without running it\n{AFTER_SLOW}  applied without running it\n" in answer.output
        assert get_visits("default") == {0}
        assert api.get_progress(SLOW).faked

    def test_of_everything_needs_a_yes(self, manage):
        assert manage("massmigrate", "--fake").code == 2
        assert manage("massmigrate", "--fake", "--noinput").code == 0
        assert get_status(FAILS) == states.APPLIED

    def test_is_refused_while_it_runs(self, manage):
        api.start_migration(NAMES, enqueue=False)
        answer = manage("massmigrate", NAMES, "--fake")
        assert answer.code == 2
        assert "already" in answer.output or "enqueued" in answer.output


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["nowhere"], "No installed app with label 'nowhere'."),
            (["nowhere", "0001"], "No installed app with label 'nowhere'."),
            (["testapp", "0099"], "testapp has no migration that begins with '0099'."),
            (["testapp", "000"], "'000' begins the names of "),
            (["testapp:0001", "0002"], "testapp:0001 names a migration already, so 0002 is too much."),
            (["testapp", "0001", "--database", "nowhere"], "There is no database 'nowhere' in DATABASES."),
            (["testapp", "0001", "--database", "default", "--all-databases"], "exclude each other"),
            (["testapp", "0001", "--workers", "2", "--no-wait"], "--workers and --no-wait exclude each other"),
            (["testapp", "--attempt", str(uuid.uuid4())], "--attempt belongs to one migration on one database"),
        ],
    )
    def test_is_one_sentence_and_exit_code_2(self, manage, words, sentence):
        answer = manage("massmigrate", *words)
        assert answer.code == 2
        assert sentence in answer.output
        assert MigrationEvent.objects.count() == 0

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--nonsense"], "unrecognized arguments: --nonsense"),
            (["testapp", "0001", "--workers", "none"], "'none' is not a whole number"),
            (["testapp", "0001", "--attempt", "x"], "'x' is not a UUID"),
            (["testapp", "0099"], "testapp has no "),
        ],
    )
    def test_exits_with_2_without_a_traceback(self, run_manage, words, sentence):
        answer = run_manage("massmigrate", *words)
        assert answer.returncode == 2
        assert sentence in answer.stderr
        assert "Traceback" not in answer.stderr

    def test_a_broken_file_that_is_named(self, manage, other_app):
        other_app.make_app("shops", {"0001_broken.py": "import nothing_like_it\n"})
        answer = manage("massmigrate", "shops", "0001")
        assert answer.code == 2
        assert "nothing_like_it" in answer.output

    def test_a_method_that_cannot_work(self, manage, other_app):
        text = simple().replace("def operation", "async def operation")
        other_app.make_app("shops", {"0001_async.py": text})
        answer = manage("massmigrate", "shops", "0001")
        assert answer.code == 2
        assert "operation() of shops:0001_async is asynchronous" in answer.output

    def test_a_database_that_it_does_not_run_on(self, manage, other_app):
        other_app.make_app("shops", {"0001_first.py": simple() + "\n    allowed_db_aliases = ['elsewhere']\n"})
        answer = manage("massmigrate", "shops", "0001")
        assert (answer.code, answer.output) == (
            2,
            "shops:0001_first does not run on database 'default'. It runs on: none.",
        )
        assert manage("massmigrate", "shops") == (
            0,
            "Nothing to do: there is no mass migration of shops for database 'default'.\n",
        )

    def test_a_folder_that_cannot_be_read(self, manage, settings):
        settings.MASSMIGRATION_MODULES = {"testapp": "nothing.like_it", "adminapp": None}
        for words in (["massmigrate", "testapp"], ["massmigrate", "testapp", "0001"]):
            answer = manage(*words)
            assert answer.code == 2
            assert "nothing.like_it" in answer.output
        for words in (["massmigrate", "--noinput"], ["showmassmigrations", "--check"]):
            answer = manage(*words)
            assert answer.code == 1
            assert "nothing.like_it" in answer.output

    def test_a_database_without_our_tables(self, run_manage, tmp_path):
        env = {**QUICK, "MASSMIGRATION_TEST_DB_DEFAULT": str(tmp_path / "new.sqlite3")}
        answer = run_manage("massmigrate", "testapp", env=env)
        assert answer.returncode == 2
        assert "Database 'default' has no tables of massmigration. Make them with: " in answer.stderr
        assert "not run" in run_manage("showmassmigrations", "--database=default", env=env).stdout


class TestAttempt:
    def test_is_worked_off(self, manage, db_alias):
        make_cities(db_alias, 5)
        attempt_uuid = api.start_migration(NAMES, db_alias, enqueue=False).attempt_uuid
        answer = manage("massmigrate", NAMES, "--database", db_alias, f"--attempt={attempt_uuid}")
        assert answer.code == 0
        assert get_visits(db_alias) == {1}

    def test_that_is_not_the_records_changes_nothing(self, manage):
        make_cities("default", 5)
        other = uuid.uuid4()
        for prepare in (lambda: None, lambda: api.start_migration(NAMES, enqueue=False)):
            prepare()
            answer = manage("massmigrate", NAMES, f"--attempt={other}")
            assert answer.code == 0
            assert (
                answer.output
                == f"Attempt {other} of {NAMES} is over on database 'default', so there is nothing to do.\n"
            )
            assert get_visits("default") == {0}

    def test_that_is_paused_is_left_alone(self, manage):
        make_cities("default", 5)
        attempt_uuid = api.start_migration(NAMES, enqueue=False).attempt_uuid
        api.pause_migration(NAMES)
        assert manage("massmigrate", NAMES, f"--attempt={attempt_uuid}").code == 0
        assert (get_status(NAMES), get_visits("default")) == (states.PAUSED, {0})


@pytest.mark.parametrize("count", ["x", "0", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(run_manage, count):
    answer = run_manage("massmigrate", "testapp", "0001", "--workers", count)
    assert answer.returncode == 2
    assert f"argument --workers: '{count}' is not a whole number from 1 on" in answer.stderr
