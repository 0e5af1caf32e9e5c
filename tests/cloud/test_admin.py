"""The admin pages of migrations on Datastore and Firestore; users and sessions are on the default database."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.test import Client

from massmigration import api, states, wording
from massmigration.admin.actions import BUTTONS
from massmigration.models import MigrationRecord
from tests.cloud.app.models import Row
from tests.cloud.support import get_visits, make_rows, quick, traffic  # noqa: F401
from tests.engine.support import work

MANAGE = "/admin/massmigration/migrationrecord/manage/"
MAPPER = "cloudapp:0002_mapper"


@pytest.fixture(autouse=True)
def files(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": None, "adminapp": None}


@pytest.fixture
def operator(clean_databases) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


def get_page(db_alias: str) -> str:
    return f"{MANAGE}{db_alias}/cloudapp/0002_mapper/"


def read(client: Client, url: str, status_code: int = 200) -> str:
    response = client.get(url)
    assert response.status_code == status_code
    return response.content.decode()


def test_a_click_runs_it_and_the_pages_show_it(db_alias, operator):
    make_rows(db_alias, 60)
    page = get_page(db_alias)
    assert f"{page}run/" in read(operator, MANAGE)
    question = read(operator, f"{page}run/")
    assert ">60<" in re.sub(r"\s", "", question) or "60" in question
    assert f"'{db_alias}'" in question or db_alias in question
    response = operator.post(f"{page}run/")
    assert (response.status_code, response["Location"]) == (302, MANAGE)
    [message] = get_messages(response.wsgi_request)
    assert str(message) == wording.describe_done("start", MAPPER, db_alias)
    assert api.wait_for_migration(MAPPER, db_alias, timeout=90).status == "applied"  # by a process of its own
    assert get_visits(db_alias) == {1: 60}
    shown = read(operator, page)
    assert f">{states.LABELS['applied']}</span>" in shown
    assert re.search(r"<td[^>]*>start</td>\s*<td[^>]*>operator</td>\s*<td[^>]*>admin</td>", shown)
    assert shown.count("Key range (shard)") or "key range" in shown.lower()


def test_the_rows_that_pages_poll_for_tell_the_progress(db_alias, operator):
    make_rows(db_alias, 40)
    migration = api.get_migration(MAPPER)
    api.start_migration(MAPPER, db_alias, enqueue=False)
    for url in (f"{MANAGE}rows/", f"{get_page(db_alias)}rows/"):
        assert states.LABELS["enqueued"] in read(operator, url)
    seen = []

    def look():
        if not seen:
            seen.append(read(operator, f"{get_page(db_alias)}rows/"))

    assert work(migration, db_alias, on_progress=look).status == "applied"
    assert re.search(r"<progress|of 40|%", seen[0])
    for url in (f"{MANAGE}rows/", f"{get_page(db_alias)}rows/"):
        assert states.LABELS["applied"] in read(operator, url)


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("pause", states.RUNNING, states.PAUSED),
        ("cancel", states.PAUSED, states.CANCELLED),
        ("fake", states.NOT_RUN, states.APPLIED),
        ("reset", states.APPLIED, states.NOT_RUN),
    ],
)
def test_every_button_does_what_it_says(db_alias, operator, path, before, after):
    if before != states.NOT_RUN:
        api.start_migration(MAPPER, db_alias, actor="test", enqueue=False)
        MigrationRecord.objects.using(db_alias).filter(pk=MAPPER).update(status=before)
    assert f"{get_page(db_alias)}{path}/" in read(operator, get_page(db_alias))
    assert f"{BUTTONS[path].submit}</button>" in read(operator, f"{get_page(db_alias)}{path}/")
    response = operator.post(f"{get_page(db_alias)}{path}/")
    [message] = get_messages(response.wsgi_request)
    assert (message.level_tag, api.get_progress(MAPPER, db_alias).status) == ("success", after)
    event = api.get_events(MAPPER, db_alias)[-1]
    assert (event.action, event.actor, event.origin) == (path, "operator", "admin")
    assert event.user_id == str(User.objects.get().pk)


def test_an_illegal_move_is_a_sentence(db_alias, operator):
    [message] = get_messages(operator.post(f"{get_page(db_alias)}pause/").wsgi_request)
    assert message.level_tag == "error"
    assert f"on database '{db_alias}', so it cannot be paused" in str(message)


def test_failures_are_shown_with_their_tracebacks(db_alias, operator, monkeypatch):
    make_rows(db_alias, 10)
    Row.objects.using(db_alias).create(name="<Atlantis>")
    migration = api.get_migration(MAPPER)
    operation = type(migration).operation

    def fail(self, row, db_alias):
        if row.name == "<Atlantis>":
            raise ValueError("under water")
        operation(self, row, db_alias)

    monkeypatch.setattr(type(migration), "operation", fail)
    api.start_migration(MAPPER, db_alias, enqueue=False)
    assert work(migration, db_alias).status == "failed"
    page = read(operator, get_page(db_alias))
    for text in ("&lt;Atlantis&gt;", "under water", "Traceback (most recent call last)", f"{get_page(db_alias)}retry/"):
        assert text in page


class ToOne:
    """Sends our tables to one database, as on a site that has no other."""

    alias = ""

    def db_for_read(self, model, **hints):
        return self.alias if model._meta.app_label == "massmigration" else None

    db_for_write = db_for_read


def test_the_list_of_records_works_where_they_live_on_a_document_store(db_alias, operator, settings, monkeypatch):
    for key in (MAPPER, "cloudapp:0001_simple"):
        api.fake_migration(key, db_alias)
    monkeypatch.setattr(ToOne, "alias", db_alias)
    settings.DATABASE_ROUTERS = ["tests.cloud.test_admin.ToOne", *settings.DATABASE_ROUTERS]
    page = read(operator, "/admin/massmigration/migrationrecord/")
    assert MAPPER in page and "cloudapp:0001_simple" in page
