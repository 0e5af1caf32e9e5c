"""References to migrations: one parser, and one error with a suggestion from every function of the API."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from massmigration import api
from massmigration.discovery import reference
from massmigration.exceptions import AmbiguousName, MassMigrationError, MigrationNotFound
from massmigration.models import MigrationEvent, MigrationRecord
from tests.throwaway import throwaway_apps

pytestmark = pytest.mark.django_db(transaction=True)

SIMPLE = """
from massmigration import SimpleMigration


class Migration(SimpleMigration):
    def operation(self, db_alias):
        pass
"""
KEY = "shop:0001_sell"
GONE = "shop:0099_gone"

TAKE_A_KEY = sorted(
    name
    for name in api.__all__
    if inspect.isfunction(getattr(api, name)) and "key" in inspect.signature(getattr(api, name)).parameters
)
NEED_THE_FILE = {
    "accept_failures",
    "fake_migration",
    "get_migration",
    "get_preparation",
    "recover_migration",
    "restart_migration",
    "resume_migration",
    "retry_migration",
    "start_migration",
}
OPTIONS: dict[str, dict[str, Any]] = {"accept_failures": {"reason": "looked at"}, "wait_for_migration": {"timeout": 0}}
WRONG: list[Any] = [
    "shop.0001_sell",
    "shop:0001",
    "shop:0001_slel",
    "shpo:0001_sell",
    "0001_sell",
    "shop/0001_sell",
    ("shop", "0001_sel"),
    ("shop", "0001"),
]


@pytest.fixture(autouse=True)
def shop(tmp_path, settings) -> Iterator[None]:
    with throwaway_apps(tmp_path, settings) as maker:
        maker.make_app("shop", {"0001_sell.py": SIMPLE, "0002_broken.py": "1 / 0"})
        yield


def call(name: str, key: Any) -> Any:
    function = getattr(api, name)
    options = OPTIONS.get(name, {})
    if "enqueue" in inspect.signature(function).parameters:
        options = {**options, "enqueue": False}
    return function(key, **options) if name == "get_migration" else function(key, db_alias="default", **options)


def test_the_functions_that_take_a_key_are_walked():
    assert len(TAKE_A_KEY) == 23
    assert set(TAKE_A_KEY) > NEED_THE_FILE


@pytest.mark.parametrize("name", TAKE_A_KEY)
def test_a_wrong_reference_is_an_error_with_a_suggestion(name):
    for wrong in WRONG:
        with pytest.raises(MigrationNotFound, match=r" Did you mean shop:0001_sell\?$"):
            call(name, wrong)
    for wrong in ("shop", "", ":", "a:b:c", ("shop",), 5, "shop:", ["shop", 1]):
        with pytest.raises(MigrationNotFound, match=r"does not name a migration\. Write it as 'app_label:0001_name'"):
            call(name, wrong)
    with pytest.raises(MigrationNotFound, match=r"There is no migration shop:0007_x\. shop has 0001_sell and 0002_br"):
        call(name, "shop:0007_x")
    assert not MigrationRecord.objects.exists()
    assert not MigrationEvent.objects.exists()


@pytest.mark.parametrize("name", TAKE_A_KEY)
def test_a_key_a_tuple_and_a_definition_mean_the_same(name):
    outcomes = []
    for right in (KEY, ("shop", "0001_sell"), api.get_migration(KEY)):
        MigrationRecord.objects.all().delete()
        outcome = ""
        try:
            call(name, right)
        except MassMigrationError as error:
            outcome = f"{type(error).__name__}: {error}"
        outcomes.append(outcome)
    assert "MigrationNotFound" not in outcomes[0]
    assert len(set(outcomes)) == 1


@pytest.mark.parametrize("name", TAKE_A_KEY)
@pytest.mark.parametrize("status", ["running", "applied"])
def test_a_record_without_a_file_is_valid_everywhere(name, status):
    MigrationRecord.objects.create(key=GONE, app_label="shop", name="0099_gone", status=status)
    if name == "get_migration":  # the only one that is not asked about a database
        with pytest.raises(MigrationNotFound, match=f"There is no migration {GONE}"):
            call(name, GONE)
    elif name in NEED_THE_FILE:
        with pytest.raises(MigrationNotFound, match=f"{GONE} has no file any more, so it cannot be run. Put the file"):
            call(name, GONE)
    else:
        with suppress(MassMigrationError):
            call(name, GONE)
        if name == "migration_is_applied":
            assert call(name, GONE) == (status == "applied")


@pytest.mark.parametrize("name", TAKE_A_KEY)
def test_a_broken_file_is_there(name):
    with suppress(MassMigrationError):
        call(name, "shop:0002_broken")
    if name == "migration_is_applied":
        assert call(name, "shop:0002_broken") is False


def test_a_folder_that_cannot_be_read_is_the_reason(settings):
    settings.MASSMIGRATION_MODULES = {"shop": "nowhere.at_all"}
    for name in ("migration_is_applied", "start_migration", "get_migration"):
        with pytest.raises(MigrationNotFound, match=r"'nowhere\.at_all' for the app shop, but it cannot be found"):
            call(name, KEY)


def test_events_are_kept_although_neither_file_nor_record_is_left():
    MigrationRecord.objects.create(key=GONE, app_label="shop", name="0099_gone", status="applied")
    api.reset_migration(GONE)
    assert [event.action for event in api.get_events(GONE)] == ["reset"]
    with pytest.raises(MigrationNotFound):
        api.get_record(GONE)


@pytest.mark.parametrize("status", ["running", "applied", None])
def test_a_guard_takes_one_query(status):
    if status:
        MigrationRecord.objects.create(key=KEY, app_label="shop", name="0001_sell", status=status)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert api.migration_is_applied(KEY) == (status == "applied")
    assert len(queries) == 1


def test_a_command_finds_a_record_by_its_prefix_where_no_file_begins_so():
    files = ["shop:0001_sell", "shop:0002_a", "shop:0002_b"]
    assert reference.find("shop", "0099", files, [GONE]) == GONE
    assert reference.find("shop", "0001", files, ["shop:0001_gone"]) == "shop:0001_sell"
    assert reference.find("shop", "0001_gone", files, ["shop:0001_gone"]) == "shop:0001_gone"
    with pytest.raises(AmbiguousName, match=r"of shop: 0002_a and 0002_b\. Write more"):
        reference.find("shop", "0002", files, ["shop:0002_c"])
    with pytest.raises(AmbiguousName, match="of shop: 0098_x and 0099_gone"):
        reference.find("shop", "009", files, [GONE, "shop:0098_x"])
    with pytest.raises(MigrationNotFound, match=r"begins with '0001_slel'\. Did you mean shop:0001_sell\?"):
        reference.find("shop", "0001_slel", files, [GONE])
