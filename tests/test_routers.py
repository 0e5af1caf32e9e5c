"""Database routers that send reads to a replica which lags behind: nothing of ours asks them, or reads there."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import F
from django.test import Client

from massmigration import BatchMigration, CustomMigration, MapperMigration, SimpleMigration, api, executor
from massmigration.databases import registry
from massmigration.databases.aliases import get_aliases, get_database_aliases
from massmigration.databases.ranges import KeyRange
from massmigration.engine.tables import get_table
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationRecord
from tests.engine.support import AUTHOR, make, run, start, work
from tests.faults import traps
from tests.faults.queues import ListBackend
from tests.testapp.models import City, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

REPLICA = "replica"
GONE = "testapp:0001_gone"
OLD, NEW = 6, 4


class Router:
    """Reads from the replica, as Django's documentation shows, and writes to one database."""

    asked: ClassVar[list[str]] = []
    primary: ClassVar[str]
    reads: ClassVar[Iterator[str]]

    def db_for_read(self, model: Any, **hints: Any) -> str:
        self.asked.append(f"read {model._meta.label}")
        return next(self.reads)

    def db_for_write(self, model: Any, **hints: Any) -> str:
        self.asked.append(f"write {model._meta.label}")
        return self.primary

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db != REPLICA


class Calls:
    """What was executed on the replica, on whichever connection."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def watch(self, connection: Any, **kwargs: Any) -> None:
        if connection.alias == REPLICA and self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements.append(sql)
        return execute(sql, params, many, context)

    def list_ours(self) -> list[str]:
        return [sql for sql in self.statements if "massmigration_" in sql or "testapp_" in sql]


@pytest.fixture
def chief() -> Client:
    """Return the browser of somebody who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("chief"))
    return client


@pytest.fixture
def gone(db_alias: str) -> None:
    """Leave a record whose file is gone, before the replica is copied."""
    MigrationRecord.objects.using(db_alias).create(key=GONE, app_label="testapp", name="0001_gone", status="failed")


def connect(self: BaseDatabaseWrapper) -> None:
    """Do what ``ensure_connection`` does outside of tests, where no list of aliases limits it."""
    if self.connection is None:
        with self.wrap_database_errors:
            self.connect()


@pytest.fixture
def replica(
    db_alias: str, chief: Client, tmp_path: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Calls]:
    """Route reads to a copy of the database as it was with ``OLD`` rows; there are ``NEW`` more by now."""
    City.objects.using(db_alias).bulk_create(City(name=f"old {number}") for number in range(OLD))
    original = connections[db_alias]
    name, is_file = str(original.settings_dict["NAME"]), original.vendor == "sqlite"
    copied = str(tmp_path / "replica.sqlite3") if is_file else f"{name}_replica"
    original.close()
    if is_file:
        shutil.copy(name, copied)
    else:
        with original._nodb_cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{copied}" TEMPLATE "{name}"')
    connections.databases[REPLICA] = {**original.settings_dict, "NAME": copied}
    City.objects.using(db_alias).bulk_create(City(name=f"new {number}") for number in range(NEW))
    calls = Calls()
    connection_created.connect(calls.watch)
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", connect)
    Router.asked, Router.primary, Router.reads = [], db_alias, itertools.repeat(REPLICA)
    settings.DATABASE_ROUTERS = [Router()]
    yield calls
    settings.DATABASE_ROUTERS = []
    connection_created.disconnect(calls.watch)
    connections[REPLICA].close()
    del connections[REPLICA]
    del connections.databases[REPLICA]
    registry._databases.pop(REPLICA, None)
    if not is_file:
        with original._nodb_cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{copied}"')


class Visit(MapperMigration):
    update_fields = ["visits"]
    batch_size = 3

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(visits=0)

    def operation(self, city, db_alias):
        city.visits += 1


class Save(Visit):
    update_fields = ()

    def operation(self, city, db_alias):
        city.visits += 1
        city.save(using=db_alias, update_fields=["visits"])


class Update(BatchMigration):
    get_queryset = Visit.get_queryset

    def operation(self, queryset, db_alias):
        queryset.update(visits=F("visits") + 1)


class Items(CustomMigration):
    def get_shards(self, db_alias):
        return [{}]

    def get_items(self, shard, cursor, db_alias):
        for key in City.objects.using(db_alias).filter(pk__gt=cursor or 0).order_by("pk").values_list("pk", flat=True):
            yield key, key

    def operation(self, item, db_alias):
        City.objects.using(db_alias).filter(pk=item).update(visits=F("visits") + 1)


class Once(SimpleMigration):
    def operation(self, db_alias):
        City.objects.using(db_alias).update(visits=F("visits") + 1)


def get_visits(db_alias: str) -> list[int]:
    return list(City.objects.using(db_alias).values_list("visits", flat=True))


@pytest.mark.parametrize("definition", [Visit, Save, Update, Items, Once])
def test_each_kind_works_on_its_database_and_asks_no_router(definition, db_alias, replica):
    progress = run(definition, db_alias)
    assert progress.status == "applied"
    assert (Router.asked, replica.statements) == ([], [])
    assert get_visits(db_alias) == [1] * (OLD + NEW)
    assert get_visits(REPLICA) == [0] * OLD


class OneIsBad(Visit):
    on_error = "skip"

    def operation(self, city, db_alias):
        if city.name == "new 1":
            raise ValueError("cannot be worked")
        super().operation(city, db_alias)


def test_failures_and_actions_of_people_ask_no_router(db_alias, replica):
    migration = make(OneIsBad)
    assert run(migration, db_alias).status == "failed"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).failed == 1
    executor.restart(migration, db_alias, AUTHOR, enqueue=False)
    executor.pause(migration.key, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "failed"
    executor.reset(migration.key, db_alias, AUTHOR)
    assert (Router.asked, replica.statements) == ([], [])


KEY = "adminapp:0001_count_visits"


def test_a_queue_its_watch_and_an_accept_ask_no_router(db_alias, replica, settings):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}
    ListBackend.empty()
    key, bad = "testapp:0012_mapper", "new 1"
    traps.spoil(bad)
    try:
        api.start_migration(key, db_alias)
        while ListBackend.waiting and api.get_progress(key, db_alias).status != "failed":
            ListBackend.deliver(ListBackend.waiting.pop(0))
        api.accept_failures(key, db_alias, reason="known")
        while ListBackend.waiting and api.get_progress(key, db_alias).status != "applied":
            ListBackend.deliver(ListBackend.waiting.pop(0))
    finally:
        traps.mend()
    assert any(name.endswith(".watch") for name, _ in ListBackend.delivered)
    assert api.get_progress(key, db_alias).status == "applied"
    assert (Router.asked, replica.statements) == ([], [])


def test_commands_read_nothing_from_the_replica(db_alias, replica, settings, capsys):
    option = f"--database={db_alias}"
    call_command("massmigrate", "adminapp", "0001_count_visits", option, "--noinput")
    assert api.count_objects(api.get_migration(KEY), db_alias).number == OLD + NEW
    assert api.get_preparation(KEY, db_alias)
    for verb in ("events", "failures"):
        call_command("massmigration", verb, "adminapp", "0001_count_visits", option)
    call_command("massmigration", "recover", option)
    call_command("showmassmigrations", option)
    assert replica.list_ours() == []
    assert f"{OLD + NEW} rows" in capsys.readouterr().out
    assert get_visits(db_alias) == [1] * (OLD + NEW)


@pytest.mark.parametrize("db_alias", ["default"])
def test_pages_read_nothing_of_ours_from_the_replica(db_alias, replica, chief):
    call_command("massmigrate", "adminapp", "0001_count_visits", "--noinput", verbosity=0)
    records = "/admin/massmigration/migrationrecord/"
    page = f"{records}manage/default/adminapp/0001_count_visits/"
    for url in (records, f"{records}manage/", f"{records}manage/rows/", page, f"{page}rows/", f"{page}failures/"):
        answer = chief.get(url)
        assert answer.status_code == 200, url
        assert "0001_count_visits" in answer.text, url
        assert REPLICA not in answer.text, url
    assert replica.list_ours() == []
    assert any("django_session" in sql for sql in replica.statements), "Django itself does as the router says"


def test_a_replica_is_no_database_that_is_migrated(db_alias, replica):
    assert REPLICA not in get_database_aliases(make(Visit))
    assert REPLICA not in get_aliases()


@pytest.mark.parametrize("db_alias", ["default"])
def test_a_record_without_a_file_is_shown_once_although_the_replica_has_it_as_well(db_alias, gone, replica, chief):
    assert [(row.key, row.database) for row in api.get_all_progress() if row.key == GONE] == [(GONE, db_alias)]
    assert REPLICA not in chief.get("/admin/massmigration/migrationrecord/manage/").text
    assert not [sql for sql in replica.statements if "massmigration_" in sql]


class Unbound(Visit):
    def get_queryset(self, db_alias):
        return City.objects.filter(visits=0)


def test_a_queryset_that_the_router_sends_to_the_replica_is_refused(db_alias, replica):
    with pytest.raises(InvalidDefinition, match="is bound to database 'replica', but the migration runs on"):
        start(make(Unbound), db_alias)


def test_a_queryset_stays_where_it_was_accepted_whatever_the_router_says_later(db_alias, replica):
    """Some routers read from the primary for a while, such as after a write, and some choose by chance."""
    Router.reads = itertools.chain([db_alias], itertools.repeat(REPLICA))
    table = get_table(make(Unbound), db_alias)
    assert table.alias == db_alias
    assert len(table.read_objects(KeyRange(None, None), 100, lock=False).rows) == OLD + NEW
    assert table.select_batch(list(City.objects.using(db_alias).values_list("pk", flat=True))).update(flag=True)
    assert replica.statements == []


@pytest.mark.parametrize("definition", [Unbound, type("Rows", (Update,), {"get_queryset": Unbound.get_queryset})])
def test_a_router_that_reads_from_the_primary_is_enough_for_a_queryset(definition, db_alias, replica):
    Router.reads = itertools.repeat(db_alias)
    assert run(definition, db_alias).status == "applied"
    assert get_visits(db_alias) == [1] * (OLD + NEW)


class Related(MapperMigration):
    """Reads what belongs to a row, once as it was fetched with it and once by itself."""

    update_fields = ["visits"]
    seen: ClassVar[list[str]] = []

    def get_queryset(self, db_alias):
        return Tag.objects.using(db_alias).select_related("city")

    def operation(self, tag, db_alias):
        self.seen.append(tag.city.name)
        tag.visits += 1


def test_what_belongs_to_a_row_comes_from_where_django_sends_it(db_alias, replica):
    first = City.objects.using(db_alias).order_by("pk")[0]
    Tag.objects.using(db_alias).create(city_id=first.pk, word="one")
    City.objects.using(db_alias).filter(pk=first.pk).update(name="renamed")
    Related.seen.clear()
    assert run(Related, db_alias).status == "applied"
    assert (Related.seen, replica.statements) == (["renamed"], [])
    definition = type("Migration", (Related,), {"get_queryset": lambda self, db_alias: Tag.objects.using(db_alias)})
    assert run(make(definition, "0002_test"), db_alias).status == "applied"
    assert Related.seen == ["renamed", "old 0"]  # from the replica, as everywhere in the project
    assert api.get_progress(make(definition, "0002_test").key, db_alias).processed == 1
