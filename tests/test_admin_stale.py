"""A page that was open for long does nothing to a state that it did not show."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from massmigration import api, executor, states
from massmigration.admin.actions import BUTTONS
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord
from massmigration.recorder import Seen
from tests.engine.support import AUTHOR
from tests.test_admin import DATABASES, KEY, MANAGE, PAGE, get_sentence, log_in, put_into, read
from tests.test_admin_failures import fail

pytestmark = pytest.mark.django_db(databases=DATABASES)

STALE = "which the page did not show yet. Nothing was changed. Look at it again, then decide."


@pytest.fixture(autouse=True)
def quiet_queue(settings) -> None:
    settings.MASSMIGRATION_BACKEND = "tests.jobs.backends.SilentBackend"


@pytest.fixture
def operator() -> Client:
    return log_in("operator", "view_migrationrecord", "run_migration")


def get_standing(page: str, path: str = "") -> str:
    """Return what the form, or the button, sends back."""
    pattern = rf'{path}/" name="standing" value="([^"]*)"' if path else r'type="hidden" name="standing" value="([^"]*)"'
    found = re.search(pattern, page)
    assert found is not None
    return found[1]


def get_state() -> tuple:
    return MigrationRecord.objects.filter(pk=KEY).values_list().first(), MigrationEvent.objects.count()


@pytest.mark.parametrize(
    ("path", "before", "meanwhile"),
    [
        ("run", states.NOT_RUN, states.CANCELLED),
        ("run", states.CANCELLED, states.NOT_RUN),
        ("restart", states.PAUSED, states.APPLIED),
        ("restart", states.APPLIED, states.FAILED),
        ("fake", states.NOT_RUN, states.PAUSED),
        ("fake", states.CANCELLED, states.FAILED),
        ("fake", states.CANCELLED, states.NOT_RUN),
        ("reset", states.FAILED, states.APPLIED),
        ("resume", states.PAUSED, states.FAILED),
        ("retry", states.FAILED, states.PAUSED),
        ("recover", states.ENQUEUED, states.RUNNING),
        ("accept", states.FAILED, states.PAUSED),
    ],
)
def test_another_status_is_refused(operator: Client, path: str, before: str, meanwhile: str) -> None:
    if path == "accept":
        fail("Atlantis")
    else:
        put_into(before)
    page = read(operator, f"{PAGE}{path}/")
    standing = get_standing(page) if 'name="standing"' in page else f"{api.get_progress(KEY).attempt_uuid} {before}"
    if meanwhile == states.NOT_RUN:
        MigrationRecord.objects.filter(pk=KEY).delete()
    elif before == states.NOT_RUN:
        put_into(meanwhile)
    else:
        MigrationRecord.objects.filter(pk=KEY).update(status=meanwhile)
    state = get_state()
    level, sentence = get_sentence(operator.post(f"{PAGE}{path}/", {"standing": standing, "reason": "because"}))
    assert (level, sentence) == (
        "error",
        f"Migration {KEY} is {states.LABELS[meanwhile]} now on database 'default', {STALE}",
    )
    assert get_state() == state
    assert set(MigrationFailure.objects.values_list("status", flat=True)) <= {"open"}


@pytest.mark.parametrize("path", [path for path, action in BUTTONS.items() if action.name != "start"])
def test_another_attempt_is_refused(operator: Client, path: str) -> None:
    status = states.MOVES[BUTTONS[path].name].sources[-1]
    put_into(status)
    standing = f"{api.get_progress(KEY).attempt_uuid} {status}"
    MigrationRecord.objects.filter(pk=KEY).update(status=states.CANCELLED)
    api.start_migration(KEY, actor="somebody else", enqueue=False)
    MigrationRecord.objects.filter(pk=KEY).update(status=status)
    state = get_state()
    level, sentence = get_sentence(operator.post(f"{PAGE}{path}/", {"standing": standing, "reason": "because"}))
    assert (level, sentence) == ("error", f"Migration {KEY} was started again on database 'default', {STALE}")
    assert get_state() == state


@pytest.mark.parametrize(("path", "after"), [("pause", states.PAUSED), ("cancel", states.CANCELLED)])
def test_stopping_compares_the_attempt_only(operator: Client, path: str, after: str) -> None:
    put_into(states.ENQUEUED)
    standing = f"{api.get_progress(KEY).attempt_uuid} {states.ENQUEUED}"
    MigrationRecord.objects.filter(pk=KEY).update(status=states.RUNNING)
    level, _ = get_sentence(operator.post(f"{PAGE}{path}/", {"standing": standing}))
    assert (level, api.get_progress(KEY).status) == ("success", after)


def test_buttons_and_forms_carry_what_is_shown(operator: Client) -> None:
    put_into(states.RUNNING)
    standing = f"{api.get_progress(KEY).attempt_uuid} running"
    for url in (MANAGE, PAGE):
        assert get_standing(read(operator, url), f"{PAGE}pause") == standing
    assert get_standing(read(operator, f"{PAGE}cancel/")) == standing
    MigrationRecord.objects.all().delete()
    assert get_standing(read(operator, f"{PAGE}run/")) == " not_run"


def test_what_is_shown_is_acted_on(operator: Client) -> None:
    page = read(operator, f"{PAGE}run/")
    assert get_sentence(operator.post(f"{PAGE}run/", {"standing": get_standing(page)}))[0] == "success"
    MigrationRecord.objects.update(status=states.APPLIED)
    page = read(operator, f"{PAGE}reset/")
    assert get_sentence(operator.post(f"{PAGE}reset/", {"standing": get_standing(page)}))[0] == "success"
    assert api.get_record(KEY) is None


def test_the_move_itself_compares(db_alias: str) -> None:
    """Also where the state changes between the first look and the write."""
    put_into(states.PAUSED, db_alias=db_alias)
    record = api.get_record(KEY, db_alias)
    from massmigration import recorder

    seen = Seen(record.attempt_uuid, states.FAILED)
    assert not recorder.move(KEY, db_alias, "restart", AUTHOR, seen=seen)
    assert not recorder.move(KEY, db_alias, "restart", AUTHOR, seen=Seen(None, states.PAUSED))
    assert not recorder.delete_record(KEY, db_alias, AUTHOR, record.attempt_uuid, seen=seen)
    with pytest.raises(IllegalMove, match="did not show yet"):
        executor.resume(api.get_migration(KEY), db_alias, AUTHOR, enqueue=False, seen=seen)
    assert recorder.move(KEY, db_alias, "resume", AUTHOR, seen=Seen(record.attempt_uuid, states.PAUSED))
