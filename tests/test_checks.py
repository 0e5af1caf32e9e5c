"""What ``manage.py check`` says: one test for each id, and none of them takes anything else down."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.apps import apps
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from massmigration.checks import check_migrations, check_settings
from massmigration.conf import SETTING_NAMES
from massmigration.discovery.loader import get_loader
from tests.throwaway import Throwaway, simple, throwaway_apps


@pytest.fixture
def throwaway(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as maker:
        yield maker


def find(number: str, messages: list[checks.CheckMessage] | None = None) -> list[Any]:
    """Return the messages with an id such as ``E001``."""
    found = check_migrations(None) if messages is None else messages
    return [message for message in found if message.id == f"massmigration.{number}"]


def find_all(app_label: str) -> list[Any]:
    """Return all messages about an app."""
    return list(check_migrations([apps.get_app_config(app_label)]))


def test_the_tests_site_has_no_fault():
    assert check_settings(None) == []
    assert check_migrations([apps.get_app_config("testapp")]) == []


def test_the_checks_are_registered_under_our_tag():
    assert checks.tag_exists("massmigration")
    assert checks.run_checks([apps.get_app_config("testapp")], tags=["massmigration"]) == []


def test_e001_a_file_that_does_not_import(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_a.py": "1 / 0", "0002_b.py": "def ("})
    first, second = find("E001")
    assert first.level == checks.ERROR
    assert first.msg.startswith("places:0001_a does not import: ZeroDivisionError: division by zero (line 1).")
    assert first.obj == str(folder / "massmigrations" / "0001_a.py")
    assert first.hint == (
        "See the traceback with: python manage.py shell -c '__import__(\"places.massmigrations.0001_a\")'. "
        "Until then it cannot be run; other migrations are not affected."
    )
    assert "SyntaxError" in second.msg


@pytest.mark.parametrize("error", ["raise SystemExit(1)", "raise BaseException", "raise GeneratorExit"])
def test_e001_whatever_the_file_raises(throwaway: Throwaway, error):
    throwaway.make_app("places", {"0001_a.py": error})
    assert len(find("E001")) == 1


def test_e002_no_usable_class(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "", "0002-b.py": simple()})
    first, second = find("E002")
    assert first.msg.startswith("places:0001_a has no class Migration. Write one")
    assert second.msg.startswith("places:0002-b has a name that cannot be used. Rename the file")
    assert first.hint == "Until then it cannot be run; other migrations are not affected."


def test_e003_unknown_dependency(throwaway: Throwaway):
    throwaway.make_app(
        "places", {"0001_clean_names.py": simple(), "0002_b.py": simple("places:0001_clean_name", "auth:0001_x")}
    )
    first, second = find("E003")
    assert first.msg == "places:0002_b depends on places:0001_clean_name, which does not exist."
    assert first.hint.startswith("Did you mean places:0001_clean_names? Django migrations belong in schema_")
    assert second.hint.startswith("Django migrations belong in schema_dependencies.")


def test_e003_a_django_migration_among_the_mass_migrations(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_initials.py": simple("testapp:0001_initial", "auth:0001_initial", "no:0001_a")})
    advice = "is a Django migration: name it in schema_dependencies instead. "
    starts = (f"testapp.0001_initial {advice}", f"auth.0001_initial {advice}", "Django migrations belong in schema_")
    for message, start in zip(find("E003"), starts, strict=True):
        assert message.hint.startswith(start)


def test_e004_circles(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple("places:0002_b"), "0002_b.py": simple("places:0001_a")})
    (message,) = find("E004")
    assert message.msg == "places:0001_a and places:0002_b depend on each other in a circle."
    assert message.hint.startswith("Take a dependency out.")
    assert find("W001") == []


def test_e005_two_files_with_one_number(throwaway: Throwaway):
    throwaway.make_app(
        "places", {"001_a.py": simple(), "0001_b.py": simple("places:001_a"), "0007_c.py": simple("places:0001_b")}
    )
    throwaway.make_app("shops", {"0001_b.py": simple()})
    (message,) = find("E005")
    assert message.msg == "places has 2 mass migrations with number 0001: 0001_b and 001_a."
    assert "the next free number, 0008" in message.hint
    assert message.obj == "places"
    assert get_loader().get("places:0001_b") and get_loader().get("places:001_a")


BAD_VALUES = {
    "MASSMIGRATION_BACKEND": 5,
    "MASSMIGRATION_TASK_QUEUE": 5,
    "MASSMIGRATION_TASK_PROJECT": 5,
    "MASSMIGRATION_TASK_LOCATION": ["europe-west1"],
    "MASSMIGRATION_TASK_URL": "example.com",
    "MASSMIGRATION_TASK_SERVICE_ACCOUNT": 5,
    "MASSMIGRATION_TASK_DEADLINE": 14,
    "MASSMIGRATION_WATCH_SECONDS": 0,
    "MASSMIGRATION_RECORD_CACHE_TIMEOUT": -1,
    "MASSMIGRATION_MODULES": ["places"],
    "MASSMIGRATION_SHARD_COUNT": 0,
    "MASSMIGRATION_BATCH_SECONDS": "fast",
    "MASSMIGRATION_SLICE_SECONDS": None,
    "MASSMIGRATION_LEASE_SECONDS": 0,
    "MASSMIGRATION_MAX_RETRIES": 1.5,
    "MASSMIGRATION_MAX_RUNNING": -1,
    "MASSMIGRATION_HANG_SECONDS": 0,
    "MASSMIGRATION_PYTHON": 3.11,
    "MASSMIGRATION_LOG_DIR": 1,
    "MASSMIGRATION_SHOW_DATABASE_DETAILS": "yes",
}


def test_there_is_a_bad_value_for_each_setting():
    assert set(SETTING_NAMES) <= set(BAD_VALUES)


@pytest.mark.parametrize("name", BAD_VALUES)
def test_e006_a_setting_with_a_value_that_cannot_work(settings, name):
    setattr(settings, name, BAD_VALUES[name])
    messages = find("E006", check_settings(None))
    assert len(messages) == 1
    assert name in messages[0].msg
    assert messages[0].hint
    check_migrations(None)  # does not raise


def test_e006_a_backend_that_does_not_exist(settings):
    settings.MASSMIGRATION_BACKEND = "no.such.Backend"
    (message,) = find("E006", check_settings(None))
    assert "'no.such.Backend' cannot be imported" in message.msg


def test_e006_modules_of_an_app_that_is_not_installed(settings):
    settings.MASSMIGRATION_MODULES = {"plaecs": "x.y", "testapp": "tests.testapp.massmigrations"}
    (message,) = find("E006", check_settings(None))
    assert message.msg.startswith("MASSMIGRATION_MODULES names plaecs, but no installed app has this label.")


def test_e006_an_interpreter_that_is_not_there(settings):
    settings.MASSMIGRATION_PYTHON = "/nope/python"
    (message,) = find("E006", check_settings(None))
    assert "MASSMIGRATION_PYTHON: /nope/python is not an executable file" in message.msg


def test_e006_a_folder_for_logs_below_a_file(settings, tmp_path):
    (tmp_path / "file").touch()
    settings.MASSMIGRATION_LOG_DIR = tmp_path / "file" / "logs"
    (message,) = find("E006", check_settings(None))
    assert message.msg.startswith(
        f"MASSMIGRATION_LOG_DIR is {tmp_path}/file/logs, but {tmp_path}/file is not a folder."
    )


ALIASES = """\
from massmigration import BaseMigration

class Migration(BaseMigration):
    allowed_db_aliases = {allowed!r}
    other_database = {other!r}
    def launch(self, db_alias): pass
"""


@pytest.mark.parametrize(
    ("allowed", "other", "expected"),
    [
        (["default", "nowhere"], None, "has 'nowhere' in allowed_db_aliases, but DATABASES has no such alias."),
        (["default"], "nowhere", "has 'nowhere' in other_database, but DATABASES has no such alias."),
        ("default", None, "has allowed_db_aliases = 'default', but it has to be a list of aliases, or None."),
        (5, None, "has allowed_db_aliases = 5, but it has to be a list of aliases, or None."),
        ([None], None, "has None in allowed_db_aliases, but DATABASES has no such alias."),
    ],
)
def test_e007_unknown_aliases(throwaway: Throwaway, allowed, other, expected):
    throwaway.make_app("places", {"0001_a.py": ALIASES.format(allowed=allowed, other=other)})
    (message,) = find("E007")
    assert message.msg == f"places:0001_a {expected}"
    assert message.hint.startswith("Correct it")


@pytest.mark.parametrize(("allowed", "other"), [(None, None), (["default"], "default"), ((), None)])
def test_known_aliases_are_fine(throwaway: Throwaway, allowed, other):
    text = ALIASES.format(allowed=allowed, other=other)
    throwaway.make_app("places", {"0001_a.py": text})
    assert find("E007") == []


def test_e008_a_folder_that_cannot_be_read(throwaway: Throwaway, settings):
    throwaway.make_app("places", {"0001_a.py": simple()})
    settings.MASSMIGRATION_MODULES = {"places": "no.such_package"}
    (message,) = find("E008")
    assert "MASSMIGRATION_MODULES names 'no.such_package' for the app places" in message.msg
    assert message.hint == "Until then places has no mass migrations; other apps are not affected."


def test_e009_a_migration_with_a_backend_that_cannot_work(throwaway: Throwaway):
    text = simple().replace("    dependencies", "    backend = 'no.such.Backend'\n    dependencies")
    throwaway.make_app("places", {"0001_a.py": text})
    (message,) = find("E009")
    assert message.msg.startswith("places:0001_a cannot be run: The backend 'no.such.Backend' cannot be imported")


def test_w001_two_leaves_are_a_warning(throwaway: Throwaway):
    throwaway.make_app(
        "places",
        {"0001_a.py": simple(), "0002_b.py": simple("places:0001_a"), "0003_c.py": simple("places:0001_a")},
    )
    (message,) = find_all("places")
    assert message.id == "massmigration.W001"
    assert message.level == checks.WARNING
    assert message.msg == "places has 2 mass migrations that no later one depends on: 0002_b and 0003_c."
    assert message.hint.startswith("All of them are run")


def test_w001_is_not_guessed_while_a_file_is_broken(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple(), "0002_b.py": "1 / 0", "0003_c.py": simple("places:0002_b")})
    assert find("W001") == []


def test_w002_a_file_without_number(throwaway: Throwaway):
    throwaway.make_app("places", {"helpers.py": ""})
    (message,) = find_all("places")
    assert message.id == "massmigration.W002"
    assert message.msg == "helpers.py has no number at the front of its name, so it is not run."
    assert "_helpers.py if it is not" in message.hint


def test_w003_a_setting_that_is_probably_misspelt(settings):
    settings.MASSMIGRATION_BATCH_SECOND = 1
    settings.MASSMIGRATION_OF_MY_OWN = 1
    (message,) = check_settings(None)
    assert message.id == "massmigration.W003"
    assert message.msg == "MASSMIGRATION_BATCH_SECOND is not a setting of massmigration."
    assert message.hint == "Did you mean MASSMIGRATION_BATCH_SECONDS?"


def test_only_the_apps_that_were_asked_for_are_checked(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "1 / 0"})
    throwaway.make_app("shops", {"0001_a.py": "1 / 0"})
    messages = find_all("shops")
    assert [message.msg[:5] for message in messages] == ["shops"]


@pytest.mark.django_db(databases=["default", "postgres"])  # Django 6.1 asks the databases for their features
def test_the_command_fails_and_shows_id_and_hint(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "1 / 0"})
    with pytest.raises(SystemCheckError, match=r"\(massmigration\.E001\) places:0001_a does not import"):
        call_command("check")


@pytest.mark.parametrize("command", ["runserver", "migrate", "shell"])
def test_a_broken_file_keeps_no_other_command_from_starting(throwaway: Throwaway, monkeypatch, command):
    throwaway.make_app("places", {"0001_a.py": "1 / 0"})
    monkeypatch.setattr(sys, "argv", ["manage.py", command])
    (message,) = find("E001")
    assert message.level == checks.WARNING
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    (message,) = find("E001")
    assert message.level == checks.ERROR


MAPPER = """\
from massmigration import MapperMigration


class Migration(MapperMigration):
    {line}

    def get_queryset(self, db_alias):
        pass

    def operation(self, obj, db_alias):
        pass
"""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("backend = 5", "backend"),
        ("backend = ['a.b']", "backend"),
        ("backend_params = 'abc'", "backend_params"),
        ("backend_params = None", "backend_params"),
        ("atomic = 'no'", "atomic"),
        ("schema_dependencies = ('places', '0001_initial')", "schema_dependencies"),
    ],
)
def test_e013_an_attribute_that_cannot_work(throwaway: Throwaway, line, name):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=line)})
    (message,) = find_all("places")
    assert message.id == "massmigration.E013"
    assert message.msg.startswith(f"{name} of places:0001_a is ")
    assert message.hint == "Until then it cannot be run; other migrations are not affected."


def test_e014_a_method_that_cannot_work(throwaway: Throwaway):
    text = MAPPER.format(line="verify = None")
    throwaway.make_app("places", {"0001_a.py": text, "0002_b.py": text.replace("def operation", "async def operation")})
    first, second, third = find("E014")
    assert first.msg == (
        "verify() of places:0001_a is None, but it has to be a method. Write it as def verify(self, db_alias), or "
        "leave it out."
    )
    assert second.msg.startswith("verify() of places:0002_b")
    assert third.msg.startswith("operation() of places:0002_b is asynchronous, but nothing awaits it")


@pytest.mark.parametrize("value", ["[]", "{}", "set()", "dict(a=1)", "bytearray()"])
def test_w009_a_value_that_all_threads_share(throwaway: Throwaway, value):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=f"names = {value}")})
    (message,) = find_all("places")
    assert (message.id, message.level) == ("massmigration.W009", checks.WARNING)
    assert ", names, which all threads of a process share." in message.msg
    assert "self.names = …" in message.hint


@pytest.mark.parametrize(
    "line", ["NAMES = {}", "names = ()", "names = frozenset()", "update_fields = []", "_names = []"]
)
def test_constants_and_our_own_attributes_are_fine(throwaway: Throwaway, line):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=line)})
    assert find_all("places") == []


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("update_field = ()", "update_fields"),
        ("batchsize = 5", "batch_size"),
        ("max_worker = 2", "max_workers"),
        ("transient_error = ()", "transient_errors"),
        ("def verfy(self, db_alias): pass", "verify"),
    ],
)
def test_w010_a_misspelt_attribute(throwaway: Throwaway, line, meant):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=line)})
    (message,) = find_all("places")
    assert (message.id, message.level) == ("massmigration.W010", checks.WARNING)
    assert message.hint.startswith(f"Did you mean {meant}? ")


@pytest.mark.parametrize("line", ["country = 'DE'", "slug_field = 'slug'", "def find_name(self): pass", "fields = ()"])
def test_attributes_of_the_authors_own_are_fine(throwaway: Throwaway, line):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=line)})
    assert find_all("places") == []


@pytest.mark.parametrize("line", ["operator = 'anna'", "operations = 3", "def get_querysets(self): pass"])
def test_a_name_like_that_of_a_method_that_is_written_is_no_misspelling(throwaway: Throwaway, line):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line=line)})
    assert find_all("places") == []


def test_w010_a_misspelt_method_beside_one_that_is_inherited(throwaway: Throwaway):
    inherited = MAPPER.format(line="").replace("class Migration(", "class Shared(")
    own = "\n\nclass Migration(Shared):\n    def get_query_set(self, db_alias):\n        pass\n"
    throwaway.make_app("places", {"0001_a.py": inherited + own})
    (message,) = find_all("places")
    assert message.hint.startswith("Did you mean get_queryset? ")


def test_w010_is_not_followed_by_w009(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": MAPPER.format(line="update_field = ['slug']")})
    assert [message.id for message in find_all("places")] == ["massmigration.W010"]


def test_w011_an_attribute_of_another_kind(throwaway: Throwaway):
    text = simple().replace("    dependencies", "    update_fields = ['slug']\n    dependencies")
    throwaway.make_app("places", {"0001_a.py": text})
    (message,) = find_all("places")
    assert (message.id, message.level) == ("massmigration.W011", checks.WARNING)
    assert message.msg == "places:0001_a has update_fields, which means nothing for a SimpleMigration."
    assert message.hint == "It belongs to MapperMigration. Take it out."
