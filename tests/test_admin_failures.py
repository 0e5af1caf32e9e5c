"""The pages of what failed: listed with tracebacks, chosen, and accepted for a reason by those who may."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from massmigration import api, states
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from tests.test_admin import DATABASES, KEY, MANAGE, PAGE, get_sentence, log_in, put_into, read
from tests.test_admin import operator as operator
from tests.test_admin import viewer as viewer

pytestmark = pytest.mark.django_db(databases=DATABASES)

FAILURES = f"{PAGE}failures/"
ACCEPT = f"{PAGE}accept/"


@pytest.fixture(autouse=True)
def quiet_queue(settings) -> None:
    settings.MASSMIGRATION_BACKEND = "tests.jobs.backends.SilentBackend"


def fail(*names: str, reason: str = states.FAILURES_OPEN, **fields) -> list[MigrationFailure]:
    """Put the migration into the state of a run that came to its end with these objects failed."""
    put_into(states.FAILED)
    record = api.get_record(KEY)
    MigrationRecord.objects.filter(pk=KEY).update(reason=reason)
    MigrationShard.objects.update(status=MigrationShard.DONE)
    MigrationShard.objects.create(
        id="end", attempt_uuid=record.attempt_uuid, key=KEY, kind=MigrationShard.FINISH, status=MigrationShard.FAILED
    )
    values = {"error_class": "ValueError", "message": "under water", "traceback": "Traceback", **fields}
    return [
        MigrationFailure.objects.create(
            id=f"{number:032x}",
            attempt_uuid=record.attempt_uuid,
            key=KEY,
            shard_id="one",
            object_key=str(number),
            object_repr=name,
            is_passed=True,
            failed_at=timezone.now() + timedelta(microseconds=number),
            **values,
        )
        for number, name in enumerate(names)
    ]


class TestList:
    def test_shows_what_failed_with_whole_tracebacks(self, viewer: Client) -> None:
        fail("Atlantis", "Lyonesse", traceback="first line\n" + "x" * 15_000 + "\nlast line")
        page = read(viewer, FAILURES)
        for text in ("Atlantis", "Lyonesse", "ValueError: under water", "first line", "x" * 15_000, "last line"):
            assert text in page
        assert "2 open failures" in page

    def test_everything_is_escaped(self, viewer: Client) -> None:
        nasty = "<script>alert(1)</script>"
        fail(nasty, error_class=nasty, message=nasty, traceback=nasty)
        for url in (PAGE, f"{PAGE}rows/", FAILURES):
            page = read(viewer, url)
            assert "<script>alert" not in page
            assert page.count(html.escape(nasty)) >= 4

    def test_the_page_that_refreshes_itself_carries_cut_texts(self, viewer: Client) -> None:
        fail(*["Atlantis"] * 30, message="m" * 1_000, traceback="first line\n" + "x" * 15_000 + "\nlast line")
        page = read(viewer, PAGE)
        assert "first line" not in page
        assert "(cut) … xxx" in page
        assert "last line" in page
        assert "mmm … (cut)" in page
        assert page.count("last line") == 20
        assert f'href="{FAILURES}"' in page
        assert len(page) < 200_000

    def test_closed_ones_are_shown_if_asked_for(self, viewer: Client) -> None:
        first, _ = fail("Atlantis", "Lyonesse")
        MigrationFailure.objects.filter(pk=first.pk).update(status="accepted")
        page = read(viewer, FAILURES)
        assert "Atlantis" not in page
        assert "Show all, also the 1 that was retried or accepted" in page
        page = read(viewer, f"{FAILURES}?all=1")
        assert "Atlantis" in page
        assert ">accepted<" in page

    def test_many_take_more_than_one_page(self, operator: Client) -> None:
        fail(*[f"city {number:03}" for number in range(60)])
        first, second = read(operator, FAILURES), read(operator, f"{FAILURES}?page=2")
        assert "city 049" in first
        assert "city 050" not in first
        assert "city 050" in second
        assert 'href="?page=2"' in first
        assert 'href="?page=1"' in second
        assert "51 to 60" in second

    def test_a_whole_operation_cannot_be_chosen(self, operator: Client) -> None:
        fail("Atlantis", "Lyonesse")
        MigrationFailure.objects.filter(object_repr="Lyonesse").update(object_key=None)
        page = read(operator, FAILURES)
        assert "the whole operation" in page
        assert page.count('type="checkbox"') == 1

    def test_who_may_only_look_has_nothing_to_press(self, viewer: Client) -> None:
        fail("Atlantis")
        page = read(viewer, FAILURES)
        assert "checkbox" not in page
        assert "mm-button" not in page
        assert ACCEPT not in page

    def test_without_failures_it_says_so(self, viewer: Client) -> None:
        put_into(states.RUNNING)
        assert "no open failures" in " ".join(read(viewer, FAILURES).split())


class TestAccept:
    def test_buttons_lead_to_the_question(self, operator: Client) -> None:
        fail("Atlantis")
        assert f'href="{ACCEPT}?from=detail"' in read(operator, PAGE)
        assert f'href="{ACCEPT}"' in read(operator, MANAGE)
        assert "Accept all 1 open…" in read(operator, FAILURES)

    def test_the_question_names_the_objects_and_wants_a_reason(self, operator: Client) -> None:
        fail("Atlantis", "Lyonesse")
        page = read(operator, f"{ACCEPT}?from=detail")
        for text in ("All open failures", "Atlantis", "Lyonesse", "under water", "Accept these failures</button>"):
            assert text in page
        assert '<textarea name="reason"' in page
        assert "required" in page
        assert api.get_progress(KEY).failed == 2

    def test_post_accepts_them_and_the_run_goes_on(self, operator: Client) -> None:
        fail("Atlantis", "Lyonesse")
        response = operator.post(ACCEPT, {"reason": "They are under water", "from": "detail"})
        assert response["Location"] == PAGE
        assert get_sentence(response) == (
            "success",
            f"Migration {KEY} on database 'default': 2 failures were accepted; the run continues to its end.",
        )
        assert api.get_progress(KEY).status == states.RUNNING
        event = next(event for event in api.get_events(KEY) if event.action == "accept")
        assert (event.actor, event.origin, event.user_id) == ("operator", "admin", str(response.wsgi_request.user.pk))
        assert event.detail == "2 objects: They are under water"
        assert "They are under water" in read(operator, PAGE)

    def test_those_that_are_chosen(self, operator: Client) -> None:
        first, second, third = fail("Atlantis", "Lyonesse", "Ys")
        page = read(operator, f"{ACCEPT}?chosen=1&failure={first.pk}&failure={third.pk}")
        assert "The failures that were chosen" in page
        assert "Lyonesse" not in page
        named = re.findall(r'name="failure" value="(\w+)"', page)
        assert named == [first.pk, third.pk]
        sentence = get_sentence(operator.post(ACCEPT, {"reason": "gone", "failure": named}))[1]
        assert sentence.endswith("were accepted; 1 stays open.")
        statuses = {failure.pk: failure.status for failure in api.get_failures(KEY)}
        assert statuses == {first.pk: "accepted", second.pk: "open", third.pk: "accepted"}
        assert api.get_progress(KEY).status == states.FAILED

    def test_choosing_none_is_not_choosing_all(self, operator: Client) -> None:
        fail("Atlantis")
        response = operator.get(f"{ACCEPT}?chosen=1")
        assert response["Location"] == FAILURES
        assert get_sentence(response) == ("error", "No failure was chosen. Choose one, or accept all of them.")

    def test_what_fails_while_the_page_is_read_stays_open(self, operator: Client) -> None:
        first, second = fail("Atlantis", "Lyonesse")
        MigrationFailure.objects.filter(pk=second.pk).update(failed_at=timezone.now() - timedelta(hours=1))
        seen = re.search(r'name="seen" value="([^"]+)"', read(operator, ACCEPT))
        assert seen is not None
        MigrationFailure.objects.filter(pk=second.pk).update(failed_at=timezone.now() + timedelta(hours=1))
        operator.post(ACCEPT, {"reason": "gone", "seen": html.unescape(seen[1])})
        assert {failure.pk: failure.status for failure in api.get_failures(KEY)} == {
            first.pk: "accepted",
            second.pk: "open",
        }

    @pytest.mark.parametrize("reason", [{}, {"reason": " "}, {"reason": "x" * 2_001}])
    def test_without_a_good_reason_it_asks_again(self, operator: Client, reason: dict[str, str]) -> None:
        fail("Atlantis")
        response = operator.post(ACCEPT, {**reason, "from": "detail"})
        page = response.content.decode()
        assert response.status_code == 200
        assert 'class="errorlist"' in page
        assert '<input type="hidden" name="from" value="detail">' in page
        assert api.get_progress(KEY).failed == 1

    def test_that_another_person_was_faster_is_told(self, operator: Client) -> None:
        (failure,) = fail("Atlantis")
        MigrationFailure.objects.update(status="retried")
        MigrationRecord.objects.update(reason=states.VERIFY_FAILED)
        level, sentence = get_sentence(operator.post(ACCEPT, {"reason": "gone", "failure": failure.pk}))
        assert level == "success"
        assert sentence == f"Migration {KEY} on database 'default': no failure was left to accept."

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_needs_the_permission_to_run(self, viewer: Client, method: str) -> None:
        fail("Atlantis")
        assert getattr(viewer, method)(ACCEPT, {"reason": "gone"}).status_code == 403
        assert getattr(log_in("clerk"), method)(ACCEPT, {"reason": "gone"}).status_code == 403
        assert api.get_progress(KEY).failed == 1
