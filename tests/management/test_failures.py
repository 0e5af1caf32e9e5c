"""``massmigration failures`` and ``massmigration accept``: what failed, in words and JSON, and taken as it is."""

from __future__ import annotations

import json

import pytest

from massmigration import api
from massmigration.models import MigrationFailure
from tests.management.conftest import get_visits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

SKIPS = "testapp:0008_skips"
WORDS = ("testapp", "0008")
REASON = "--reason=They are gone"


@pytest.fixture
def failed(manage):
    """Let two of five cities fail."""
    make_cities("default", 3)
    for number in range(2):
        City.objects.create(name=f"Nowhere {number}", note="bad")
    assert manage("massmigrate", SKIPS).code == 1


def get_failures(status: str = "open") -> list[MigrationFailure]:
    return [failure for failure in api.get_failures(SKIPS) if failure.status == status]


class TestFailures:
    def test_are_listed_with_their_errors(self, manage, failed):
        answer = manage("massmigration", "failures", *WORDS)
        first, second = get_failures()
        lines = answer.output.splitlines()
        assert (answer.code, len(lines)) == (0, 4)
        assert lines[0].startswith(f"{first.pk[:12]}  20")
        assert lines[0].endswith(f"{SKIPS}  open  object {first.object_key} (Nowhere 0)")
        assert lines[1] == "    ValueError: Nowhere 0 is bad"
        assert lines[2].startswith(second.pk[:12])

    @pytest.mark.parametrize("words", [[], ["testapp"], [SKIPS]])
    def test_of_all_or_an_app(self, manage, failed, words):
        assert manage("massmigration", "failures", *words).output.count(" is bad") == 2

    def test_with_their_tracebacks(self, manage, failed):
        output = manage("massmigration", "failures", *WORDS, "--traceback").output
        assert output.count("    Traceback (most recent call last):") == 2
        assert output.count("    ValueError: Nowhere 0 is bad") == 1

    def test_a_wrong_name_is_one_sentence_also_with_tracebacks(self, run_manage):
        answer = run_manage("massmigration", "failures", "nowhere", "--traceback")
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr

    def test_are_json(self, manage, failed):
        rows = json.loads(manage("massmigration", "failures", *WORDS, "--format=json").output)
        first, _ = get_failures()
        assert list(rows[0]) == [
            "id",
            "key",
            "database",
            "attempt_uuid",
            "status",
            "object_key",
            "object_repr",
            "error_class",
            "message",
            "failed_at",
        ]
        assert (rows[0]["id"], rows[0]["object_repr"], rows[0]["status"]) == (first.pk, "Nowhere 0", "open")
        rows = json.loads(manage("massmigration", "failures", *WORDS, "--format=json", "--traceback").output)
        assert rows[1]["traceback"].startswith("Traceback")

    def test_are_so_many_at_most(self, manage, failed):
        output = manage("massmigration", "failures", *WORDS, "--limit=1").output
        assert output.count(" is bad") == 1
        assert output.endswith("and 1 more; --limit=2 shows all\n")
        assert manage("massmigration", "failures", "--limit=0").code == 2

    def test_that_are_closed_are_shown_if_asked_for(self, manage, failed):
        manage("massmigration", "accept", *WORDS, REASON, "--noinput", f"--failure={get_failures()[0].pk}")
        assert "Nowhere 0" not in manage("massmigration", "failures", *WORDS).output
        output = manage("massmigration", "failures", *WORDS, "--all").output
        assert "  accepted  object" in output
        assert "  open  object" in output

    @pytest.mark.parametrize(("words", "answer"), [([], "No open failures.\n"), (["--all"], "No failures.\n")])
    def test_of_none(self, manage, words, answer):
        assert manage("massmigration", "failures", *WORDS, *words) == (0, answer)

    def test_that_are_long_or_steer_the_terminal(self, manage, failed):
        MigrationFailure.objects.update(message="one\n\x1b[2J" + "x" * 500, object_repr="\x1b]0;title\x07")
        output = manage("massmigration", "failures", *WORDS).output
        assert "\x1b" not in output
        assert "\x07" not in output
        assert "ValueError: one \\x1b[2Jxxx" in output
        assert "x … (cut)\n" in output

    def test_of_a_whole_operation(self, manage, failed):
        MigrationFailure.objects.update(object_key=None)
        assert "  open  the whole operation\n" in manage("massmigration", "failures", *WORDS).output


class TestAccept:
    def test_takes_all_and_sees_the_run_to_its_end(self, manage, failed):
        answer = manage("massmigration", "accept", *WORDS, REASON, "--noinput", "--actor=ada")
        assert answer.code == 0
        first, *_, applied, warning = answer.output.splitlines()
        assert first == f"{SKIPS}  2 failures were accepted; the run continues to its end"
        assert applied.startswith(f"{SKIPS}  applied: 3 rows")
        assert warning == "  Warning: 2 objects were accepted after an error, unmigrated."
        assert get_visits("default") == {0, 1}
        event = next(event for event in api.get_events(SKIPS) if event.action == "accept")
        assert (event.actor, event.origin, event.detail) == ("ada", "command", "2 objects: They are gone")

    def test_takes_those_that_are_named(self, manage, failed):
        first, second = get_failures()
        answer = manage("massmigration", "accept", *WORDS, REASON, "--noinput", f"--failure={first.pk[:12]}")
        assert answer == (0, f"{SKIPS}  1 failure was accepted; 1 stays open\n")
        assert api.get_progress(SKIPS).status == "failed"
        City.objects.update(note="")
        assert manage("massmigration", "retry", *WORDS).code == 0
        assert City.objects.get(name="Nowhere 0").visits == 0
        assert City.objects.get(name="Nowhere 1").visits == 1
        assert [failure.pk for failure in get_failures("retried")] == [second.pk]

    @pytest.mark.parametrize("words", [[], ["--reason="], ["--reason", "  "]])
    def test_needs_a_reason(self, manage, failed, words):
        answer = manage("massmigration", "accept", *WORDS, "--noinput", *words)
        assert answer.code == 2
        assert "massmigration accept needs a reason" in answer.output
        assert len(get_failures()) == 2

    def test_needs_a_yes(self, manage, failed):
        answer = manage("massmigration", "accept", *WORDS, REASON)
        assert answer.code == 2
        assert "has to be confirmed, but there is no terminal" in answer.output
        assert len(get_failures()) == 2

    def test_needs_a_migration(self, manage):
        assert "massmigration accept needs a migration" in manage("massmigration", "accept", REASON).output

    def test_finds_nothing_to_accept(self, manage):
        make_cities("default", 1)
        City.objects.create(name="Nowhere", note="bad")
        manage("massmigrate", SKIPS)
        MigrationFailure.objects.update(object_key=None)
        assert manage("massmigration", "accept", *WORDS, REASON) == (0, f"{SKIPS}  no failure was left to accept\n")

    @pytest.mark.parametrize("prepare", [[], ["massmigration", "cancel", *WORDS]])
    def test_is_refused_where_no_run_waits_for_it(self, manage, failed, prepare):
        if prepare:
            manage(*prepare)
        else:
            manage("massmigration", "reset", *WORDS, "--noinput")
        answer = manage("massmigration", "accept", *WORDS, REASON, "--noinput")
        assert answer.code == 2
        assert "so it cannot have failures accepted. Only objects" in answer.output

    def test_refuses_a_failure_that_is_not_there(self, manage, failed):
        answer = manage("massmigration", "accept", *WORDS, REASON, "--noinput", "--failure=x")
        assert answer.code == 2
        assert f"{SKIPS} has no failure 'x'" in answer.output

    @pytest.mark.parametrize(("backend", "words"), [("SilentBackend", ["--no-wait"]), ("ImmediateBackend", [])])
    def test_hands_it_to_a_queue(self, manage, failed, settings, backend, words):
        settings.MASSMIGRATION_BACKEND = f"tests.jobs.backends.{backend}"
        answer = manage("massmigration", "accept", *WORDS, REASON, "--noinput", *words)
        assert answer.code == 0
        if words:
            assert f"{SKIPS}  running in the background" in answer.output
            assert api.get_progress(SKIPS).status == "running"
        else:
            assert api.get_progress(SKIPS).status == "applied"


def test_a_run_that_failed_names_the_command(manage):
    City.objects.create(name="Nowhere", note="bad")
    output = manage("massmigrate", SKIPS).output
    assert "  Or skip the failed objects: " in output
    assert f"massmigration accept {' '.join(SKIPS.split(':'))} --reason=TEXT" in output
