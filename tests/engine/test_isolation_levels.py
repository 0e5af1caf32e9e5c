"""Whatever isolation level a site has chosen on PostgreSQL, our transactions are READ COMMITTED, and only ours."""

from __future__ import annotations

import time

import pytest
from django.db import DatabaseError, InterfaceError, connections, transaction

from massmigration import BatchMigration, MapperMigration, SimpleMigration
from massmigration.databases.transactions import run_write, write_transaction
from massmigration.models import MigrationShard
from tests.engine.support import in_threads, make, run
from tests.testapp.models import City

pytestmark = [
    pytest.mark.needs_postgres,
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
]

ALIAS = "postgres"
LEVELS = ["repeatable read", "serializable"]


@pytest.fixture
def level(request):
    """Set the level for all sessions of this database, as ``OPTIONS`` would for each of Django's.

    Tests in parallel share the server, and have other databases.
    """
    database = connections[ALIAS].settings_dict["NAME"]
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = '{request.param}'")
    connections[ALIAS].close()
    yield request.param
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {database} RESET default_transaction_isolation")
    connections[ALIAS].close()


@pytest.fixture
def level_in_options():
    """Set it as Django's documentation says."""
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    settings = connections[ALIAS].settings_dict
    before = settings["OPTIONS"]
    settings["OPTIONS"] = {**before, "isolation_level": IsolationLevel.SERIALIZABLE}
    connections[ALIAS].close()
    yield
    settings["OPTIONS"] = before
    connections[ALIAS].close()


def get_level():
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return cursor.fetchone()[0]


def get_authors_level():
    with transaction.atomic(using=ALIAS):
        return get_level()


class Looks:
    @staticmethod
    def look():
        raise NotImplementedError


class Mapper(Looks, MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        self.look()
        city.visits += 1


class Unlocked(Mapper):
    lock_rows = False


class Saving(Mapper):
    update_fields = ()

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        city.save(using=db_alias)


class Batch(Looks, BatchMigration):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, rows, db_alias):
        self.look()
        rows.update(visits=1)


class Simple(Looks, SimpleMigration):
    def operation(self, db_alias):
        self.look()
        City.objects.using(db_alias).update(visits=1)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("definition", [Mapper, Unlocked, Saving, Batch, Simple])
def test_a_batch_longer_than_its_lease_is_committed(level, definition, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.9
    City.objects.using(ALIAS).create(name="c")
    calls = []

    def get_leases():
        return list(MigrationShard.objects.using(ALIAS).values_list("lease_expires_at", flat=True))

    def wait_for_heartbeat():
        leases = get_leases()
        while get_leases() == leases:
            time.sleep(0.02)

    def look():
        assert len(calls) < 3, "no batch is ever committed"
        calls.append(get_level())
        in_threads(wait_for_heartbeat)

    migration = make(type("Migration", (definition,), {"look": staticmethod(look)}))
    progress = run(migration, ALIAS)
    assert (progress.status, len(calls)) == ("applied", 1)
    assert City.objects.using(ALIAS).get().visits == 1
    if definition is not Unlocked:  # which is called outside of the transaction
        assert calls == ["read committed"]
    assert get_authors_level() == level


def test_the_level_in_options(level_in_options):
    with write_transaction(ALIAS):
        assert get_level() == "read committed"
    assert get_authors_level() == "serializable"


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_short_writes_see_what_was_committed_before_them(level):
    city = City.objects.using(ALIAS).create(name="c")
    tries = []

    def write():
        tries.append(get_level())
        if len(tries) == 1:
            in_threads(lambda: City.objects.using(ALIAS).filter(pk=city.pk).update(name="site"))
        return City.objects.using(ALIAS).filter(pk=city.pk, name="site").update(visits=1)

    assert run_write(ALIAS, write) == 1
    assert tries == ["read committed"]


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_a_transaction_of_the_author_is_left_alone(level):
    with transaction.atomic(using=ALIAS):
        City.objects.using(ALIAS).create(name="c")
        with write_transaction(ALIAS):
            assert get_level() == level
    assert get_authors_level() == level


@pytest.mark.parametrize("level", ["serializable"], indirect=True)
def test_the_level_is_back_after_an_error(level):
    with pytest.raises(ValueError, match="out"), write_transaction(ALIAS):
        raise ValueError("out")
    assert get_authors_level() == level
    with pytest.raises((DatabaseError, InterfaceError)), write_transaction(ALIAS):
        connections[ALIAS].connection.close()
    connections[ALIAS].close()
    assert get_authors_level() == level
