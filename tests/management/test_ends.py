"""What ends a command in the middle, and outputs that cannot take what is said: neither decides how a run ends."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command

from massmigration import api, states
from massmigration.models import MigrationFailure, MigrationShard
from tests.faults.queues import ListBackend
from tests.management.conftest import get_visits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

KEY = "shop:0001_raises"
RAISES = """\
import asyncio
import sys
from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    update_fields = ["visits"]
    batch_size = 4
    shard_count = 1

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        if city.name == "city 5":
            {statement}
        city.visits += 1
"""
BAD = ("sys.exit(0)", "sys.exit()", "raise KeyboardInterrupt", "raise asyncio.CancelledError", "raise GeneratorExit")


def get_shard(db_alias):
    return MigrationShard.objects.using(db_alias).get(kind="range")


def see_one(manage, db_alias, count):
    answer = manage("massmigrate", KEY, "--database", db_alias)
    assert answer.code == 1
    assert f"{KEY} was broken off on database '{db_alias}' by " in answer.output
    shard = get_shard(db_alias)
    assert api.get_progress(KEY, db_alias).status == states.RUNNING
    assert (shard.status, shard.lease_expires_at, shard.takeovers) == ("ready", None, count)


@pytest.mark.parametrize("statement", BAD)
def test_what_is_no_exception_ends_the_command_with_1_and_is_counted(manage, other_app, statement):
    other_app.make_app("shop", {"0001_raises.py": RAISES.format(statement=statement)})
    make_cities("default", 12)
    see_one(manage, "default", 1)
    assert list(City.objects.order_by("pk").values_list("visits", flat=True)) == [1] * 4 + [0] * 8


def test_six_of_them_at_the_same_object_blame_it(manage, other_app, db_alias):
    other_app.make_app("shop", {"0001_raises.py": RAISES.format(statement="sys.exit(0)")})
    make_cities(db_alias, 12)
    for count in range(1, 7):
        see_one(manage, db_alias, count)
    answer = manage("massmigrate", KEY, "--database", db_alias)
    bad = City.objects.using(db_alias).get(name="city 5")
    assert answer.code == 1
    assert f"6 workers in a row were lost at the object with key {bad.pk}" in answer.output
    assert api.get_progress(KEY, db_alias).status == states.FAILED
    assert MigrationFailure.objects.using(db_alias).get().object_key == str(bad.pk)
    answer = manage("massmigration", "accept", KEY, "--database", db_alias, "--reason=none", "--noinput")
    assert answer.code == 0, answer.output
    assert manage("massmigrate", KEY, "--database", db_alias).code == 0
    assert list(City.objects.using(db_alias).filter(visits=0)) == [bad]


def test_a_task_of_a_queue_raises_it_and_leaves_no_lease(other_app, settings, db_alias):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    ListBackend.empty()
    other_app.make_app("shop", {"0001_raises.py": RAISES.format(statement="sys.exit(0)")})
    make_cities(db_alias, 12)
    api.start_migration(KEY, db_alias)
    ListBackend.deliver(ListBackend.waiting.pop(0))
    (task,) = [task for task in ListBackend.waiting if "-range-" in task[1]]
    with pytest.raises(SystemExit):
        ListBackend.deliver(task)
    shard = get_shard(db_alias)
    assert (shard.status, shard.lease_expires_at, shard.takeovers) == ("ready", None, 1)


@pytest.mark.parametrize(
    ("method", "command"),
    [("before_start", "massmigrate"), ("verify", "massmigrate"), ("get_queryset", "massmigrate")],
)
def test_a_hook_that_exits_does_not_end_a_command_well(manage, other_app, method, command):
    text = RAISES.format(statement="pass") + f"\n    def {method}(self, db_alias):\n        sys.exit(0)\n"
    other_app.make_app("shop", {"0001_raises.py": text})
    make_cities("default", 3)
    answer = manage(command, KEY)
    assert answer.code == 1
    assert "SystemExit: 0" in answer.output
    assert not api.migration_is_applied(KEY)


NAMED = "shop:0001_größe"


class Ascii(io.StringIO):
    """An output that no one can have escape what it does not know."""

    def write(self, text):
        text.encode("ascii")
        return super().write(text)


def make_named(other_app):
    other_app.make_app("shop", {"0001_größe.py": RAISES.format(statement="pass")})
    make_cities("default", 12)


def test_an_output_that_cannot_encode_a_sentence_fails_no_migration(other_app):
    make_named(other_app)
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    call_command("massmigrate", NAMED, stdout=out)
    out.flush()
    assert get_visits("default") == {1}
    assert "shop:0001_gr\\xf6\\xdfe  applied" in raw.getvalue().decode("ascii")
    assert out.errors == "strict"


def test_an_output_of_another_kind_that_cannot_encode_it(other_app):
    make_named(other_app)
    out = Ascii()
    call_command("massmigrate", NAMED, stdout=out)
    assert "shop:0001_gr\\xf6\\xdfe  applied" in out.getvalue()
    assert get_visits("default") == {1}


class Closing(io.StringIO):
    """An output that is closed while the command runs."""

    def write(self, text):
        self.close()
        return super().write(text)


def test_an_output_that_is_closed(other_app):
    make_named(other_app)
    call_command("massmigrate", NAMED, stdout=Closing())
    assert api.migration_is_applied(NAMED)


def test_a_child_whose_output_knows_ascii_only(run_manage, db_alias):
    City.objects.using(db_alias).create(name="city 1")
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "MASSMIGRATION_TEST_LEASE_SECONDS": "2",
        "PYTHONIOENCODING": "ascii",
    }
    answer = run_manage("massmigrate", "testapp:0029_exotic", "--database", db_alias, env=environment)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert "Z\\xfcrich" in answer.stdout
