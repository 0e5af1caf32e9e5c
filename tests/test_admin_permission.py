"""Who may do what on the pages: the hook's two forms, and files that do not work, so that nobody can be asked."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from massmigration import states
from massmigration.admin.actions import BUTTONS
from massmigration.models import MigrationRecord
from tests.test_admin import DATABASES, MANAGE, log_in, odd_files  # noqa: F401

pytestmark = [pytest.mark.django_db(databases=DATABASES), pytest.mark.usefixtures("odd_files")]

WITHOUT_DEFINITION = ["adminapp/0001_broken", "adminapp/0006_needs_broken", "gone/0001_lost"]


@pytest.fixture
def operator() -> Client:
    return log_in("operator", "view_migrationrecord", "run_migration")


@pytest.fixture
def trainee() -> Client:
    return log_in("trainee", "view_migrationrecord", "run_migration")


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


def put_record(path: str, status: str, db_alias: str = "default") -> str:
    app_label, name = path.split("/")
    key = f"{app_label}:{name}"
    MigrationRecord.objects.using(db_alias).create(key=key, app_label=app_label, name=name, status=status)
    return key


def get_buttons(client: Client, path: str, db_alias: str = "default") -> set[str]:
    found = []
    for url in (MANAGE, f"{MANAGE}{db_alias}/{path}/"):
        page = client.get(url).content.decode()
        found.append(set(re.findall(rf'(?:href|formaction)="{MANAGE}{db_alias}/{path}/(\w+)/', page)))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("path", WITHOUT_DEFINITION)
def test_without_a_definition_a_run_can_be_stopped_and_nothing_else(operator: Client, path: str) -> None:
    key = put_record(path, states.RUNNING)
    assert get_buttons(operator, path) == {"pause", "cancel"}
    for action in set(BUTTONS) - {"pause", "cancel"}:
        url = f"{MANAGE}default/{path}/{action}/"
        assert (action, operator.get(url).status_code, operator.post(url).status_code) == (action, 403, 403)
    assert operator.post(f"{MANAGE}default/{path}/pause/").status_code == 302
    assert MigrationRecord.objects.get(pk=key).status == states.PAUSED
    assert get_buttons(operator, path) == {"cancel"}
    assert operator.post(f"{MANAGE}default/{path}/cancel/").status_code == 302
    assert MigrationRecord.objects.get(pk=key).status == states.CANCELLED
    assert get_buttons(operator, path) == set()


@pytest.mark.parametrize("path", WITHOUT_DEFINITION)
def test_without_a_definition_only_superusers_reset(operator: Client, boss: Client, path: str) -> None:
    key = put_record(path, states.APPLIED)
    assert operator.post(f"{MANAGE}default/{path}/reset/").status_code == 403
    assert MigrationRecord.objects.filter(pk=key).exists()
    assert get_buttons(boss, path) == {"reset"}
    assert boss.post(f"{MANAGE}default/{path}/reset/").status_code == 302
    assert not MigrationRecord.objects.filter(pk=key).exists()
    for action in ("run", "fake"):
        assert boss.post(f"{MANAGE}default/{path}/{action}/").status_code in (403, 404)


def test_hook_may_take_action_and_database(trainee: Client, operator: Client) -> None:
    path = "adminapp/0004_asks_in_detail"
    for alias in DATABASES:
        put_record(path, states.RUNNING, alias)
    assert get_buttons(trainee, path) == {"pause"}
    assert get_buttons(trainee, path, "postgres") == set()
    assert {"pause", "cancel"} <= get_buttons(operator, path)
    assert trainee.post(f"{MANAGE}default/{path}/cancel/").status_code == 403
    assert trainee.post(f"{MANAGE}postgres/{path}/pause/").status_code == 403
    assert trainee.post(f"{MANAGE}default/{path}/pause/").status_code == 302


def test_answer_that_is_none_is_no_permission(operator: Client) -> None:
    path = "adminapp/0005_asks_later"
    put_record(path, states.RUNNING)
    assert get_buttons(operator, path) == set()
    assert operator.post(f"{MANAGE}default/{path}/cancel/").status_code == 403
