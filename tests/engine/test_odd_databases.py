"""Settings, tables and querysets that databases and authors may come up with, and that must blame no row."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest
from django.db import InterfaceError, OperationalError, connections, models, transaction

from massmigration import BatchMigration, MapperMigration
from massmigration.databases import spreading
from massmigration.databases.postgresql import Database as PostgreSQL
from massmigration.databases.registry import get_database, is_transient
from massmigration.databases.transactions import run_write
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import make, run, start, wait_until_waited_for
from tests.engine.tables import Extra
from tests.testapp.models import City, Tag, TextRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

ALIAS = "postgres"


def make_cities(db_alias, count=20):
    return City.objects.using(db_alias).bulk_create([City(name=f"c{number}") for number in range(count)])


class Mapper(MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


@contextlib.contextmanager
def locked(pk, seconds=None):
    """Have the site lock a row for some seconds or until the event is set; without a time until we wait for it."""
    is_locked, is_over = threading.Event(), threading.Event()
    seen = []

    def lock():
        with transaction.atomic(using=ALIAS):
            City.objects.using(ALIAS).select_for_update().get(pk=pk)
            is_locked.set()
            seen.append(wait_until_waited_for(ALIAS) if seconds is None else is_over.wait(seconds))
        connections[ALIAS].close()

    thread = threading.Thread(target=lock)
    thread.start()
    assert is_locked.wait(10)
    try:
        yield is_over
    finally:
        is_over.set()
        thread.join()
    assert seconds is not None or seen == [True]


@pytest.fixture
def limit(request):
    """Set a time-out for all sessions of this database; tests in parallel share the server, and have others."""
    name, database = request.param, connections[ALIAS].settings_dict["NAME"]
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {database} SET {name} = '250ms'")
    connections[ALIAS].close()
    yield name
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {database} RESET {name}")
    connections[ALIAS].close()


@needs_postgres
@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"], indirect=True)
@pytest.mark.parametrize("lock_rows", [True, False])
def test_a_row_that_the_site_locks_is_waited_for_and_not_blamed(limit, lock_rows):
    cities = make_cities(ALIAS)
    migration = make(type("Migration", (Mapper,), {"on_error": "skip", "max_retries": 1, "lock_rows": lock_rows}))

    def look():
        """Let the site end its transaction once the range has rested for it."""
        if MigrationShard.objects.using(ALIAS).filter(retries__gt=0).exists():
            is_over.set()

    with locked(cities[7].pk, 60) as is_over:
        progress = run(migration, ALIAS, on_progress=look)
        assert is_over.is_set()
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 20)
    assert set(City.objects.using(ALIAS).values_list("visits", flat=True)) == {1}


@needs_postgres
@pytest.mark.parametrize("limit", ["statement_timeout"], indirect=True)
def test_a_slow_statement_of_the_operation_is_its_own(limit):
    class Migration(Mapper):
        on_error = "skip"

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "c7":
                with connections[db_alias].cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(5)")

    make_cities(ALIAS)
    progress = run(Migration, ALIAS)
    assert (progress.status, progress.failed, progress.changed) == ("failed", 1, 19)


@needs_postgres
@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"], indirect=True)
def test_short_writes_wait_for_locks(limit):
    (city,) = make_cities(ALIAS, 1)
    with locked(city.pk, 0.6):
        assert run_write(ALIAS, lambda: City.objects.using(ALIAS).filter(pk=city.pk).update(visits=1)) == 1


@needs_postgres
@pytest.mark.parametrize("seconds", [0.1, 600, 10**7, 1e300])
def test_any_time_to_hang_is_within_postgresqls_range(seconds):
    with transaction.atomic(using=ALIAS):
        get_database(ALIAS).limit_idling(seconds)
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'")
            assert cursor.fetchone() == (min(seconds * 1000, 2**31 - 1),)


def test_a_value_that_sqlite_cannot_store_is_not_transient():
    error = InterfaceError("Error binding parameter 0 - probably unsupported type.")
    error.__cause__ = sqlite3.InterfaceError(str(error))  # as up to Python 3.10
    assert not is_transient(error)
    assert is_transient(InterfaceError("connection already closed"))


class TextView(Extra):
    id = models.CharField(max_length=200, primary_key=True)
    visits = models.IntegerField()

    class Meta(Extra.Meta):
        managed = False
        db_table = "extra_text_view"


@pytest.fixture
def view(db_alias):
    TextRow.objects.using(db_alias).bulk_create([TextRow(id=f"key {number}") for number in range(200)])
    with connections[db_alias].cursor() as cursor:
        cursor.execute("CREATE VIEW extra_text_view AS SELECT id, visits FROM testapp_textrow")
    yield TextView.objects.using(db_alias)
    with connections[db_alias].cursor() as cursor:
        cursor.execute("DROP VIEW extra_text_view")


@needs_postgres
@pytest.mark.parametrize("db_alias", [ALIAS])
@pytest.mark.parametrize("is_in_test", [False, True])
def test_a_view_has_no_pages_to_sample(db_alias, view, is_in_test):
    with transaction.atomic(using=db_alias) if is_in_test else contextlib.nullcontext():
        assert PostgreSQL(db_alias).sample_keys(view.all()) == []
        assert view.count() == 200


@needs_postgres
@pytest.mark.parametrize("db_alias", [ALIAS])
def test_a_large_view_is_gone_through(db_alias, view, monkeypatch):
    class Migration(Mapper):
        shard_count = 3

        def get_queryset(self, db_alias):
            return TextView.objects.using(db_alias)

    monkeypatch.setattr(spreading, "SAMPLE_LIMIT", 10)
    assert run(Migration, db_alias).status == "applied"
    assert set(TextRow.objects.using(db_alias).values_list("visits", flat=True)) == {1}


@pytest.mark.parametrize(
    "options", [{}, {"skip_locked": True}, {"nowait": True}, {"of": ("self",), "no_key": True}], ids=str
)
@pytest.mark.parametrize("lock_rows", [True, False])
def test_an_authors_own_locks_are_the_engines(db_alias, options, lock_rows):
    class Batch(BatchMigration):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).select_for_update(**options)

        def operation(self, rows, db_alias):
            rows.update(visits=models.F("visits") + 1)

    class Map(Mapper):
        get_queryset = Batch.get_queryset

    cities = make_cities(db_alias)
    for number, definition in enumerate((Batch, Map)):
        definition.lock_rows = lock_rows
        migration = make(definition, f"{number:04}_x")
        with locked(cities[7].pk) if db_alias == ALIAS else contextlib.nullcontext():
            assert run(migration, db_alias).status == "applied"
        assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {number + 1}


def test_locks_of_related_rows_are_refused(db_alias):
    class Migration(Mapper):
        def get_queryset(self, db_alias):
            return Tag.objects.using(db_alias).select_related("city").select_for_update(of=("self", "city"))

    with pytest.raises(InvalidDefinition, match="locks related rows"):
        start(make(Migration), db_alias)


def test_an_error_of_the_connection_is_transient():
    assert not is_transient(OperationalError("no such function"))
