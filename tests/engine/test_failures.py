"""Objects that an operation cannot handle: isolated, kept, retried; and errors that are nobody's fault."""

from __future__ import annotations

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, models

from massmigration import (
    BatchMigration,
    CustomMigration,
    MapperMigration,
    RetryLater,
    SimpleMigration,
    executor,
    recorder,
)
from massmigration.models import MigrationFailure, MigrationShard
from tests.engine.support import AUTHOR, in_threads, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

broken: set[str] = set()


@pytest.fixture(autouse=True)
def mend():
    broken.clear()
    yield
    broken.clear()


def make_cities(db_alias: str, count: int = 120) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias: str) -> list[int]:
    return sorted(set(City.objects.using(db_alias).values_list("visits", flat=True)))


class Mapper(MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1
        if city.name in broken:
            raise ValueError(f"{city.name} is broken")


class MapperThatSaves(Mapper):
    update_fields = ()

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        city.save()


class Batch(BatchMigration):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        for city in queryset:
            if city.name in broken:
                raise ValueError(f"{city.name} is broken")
        queryset.update(visits=models.F("visits") + 1)


class Custom(CustomMigration):
    def get_items(self, shard, cursor, db_alias):
        rows = City.objects.using(db_alias).filter(pk__gt=cursor or 0).order_by("pk")
        yield from rows.values_list("pk", "name")

    def operation(self, item, db_alias):
        City.objects.using(db_alias).filter(name=item).update(visits=models.F("visits") + 1)
        if item in broken:
            raise ValueError(f"{item} is broken")


@pytest.mark.parametrize("definition", [Mapper, MapperThatSaves, Batch, Custom])
def test_one_bad_row_stops_the_run_and_a_retry_goes_on_there(db_alias, definition):
    make_cities(db_alias)
    broken.add("City 87")
    migration = make(definition)
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "operation_error", 1)
    assert progress.processed == 87
    assert "City 87 is broken" in progress.error
    assert City.objects.using(db_alias).filter(visits=1).count() == 87
    (failure,) = recorder.get_failures(recorder.get_record(migration.key, db_alias).attempt_uuid, db_alias)
    assert failure.error_class == "builtins.ValueError"
    assert "operation" in failure.traceback
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 120)
    assert get_visits(db_alias) == [1]


@pytest.mark.parametrize("definition", [Mapper, MapperThatSaves, Batch, Custom])
def test_skip_goes_on_and_a_retry_takes_the_failed_rows_only(db_alias, definition):
    make_cities(db_alias)
    broken.update({"City 0", "City 17", "City 18", "City 119"})
    migration = make(type("Migration", (definition,), {"on_error": "skip"}))
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "failures_open", 4)
    assert progress.processed == 116
    assert City.objects.using(db_alias).filter(visits=1).count() == 116
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 120)
    assert get_visits(db_alias) == [1]


def test_a_retry_that_fails_again_is_one_failure(db_alias):
    make_cities(db_alias, 10)
    broken.add("City 3")
    migration = make(Mapper)
    run(migration, db_alias)
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("failed", 1, 3)
    assert MigrationFailure.objects.using(db_alias).count() == 1


def test_too_many_failures_stop_the_run(db_alias):
    class Migration(Mapper):
        on_error = "skip"
        max_failures = 5

    make_cities(db_alias, 100)
    broken.update(f"City {number}" for number in range(100))
    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "max_failures", 6)


def test_an_object_that_raises_once_only_is_no_failure(db_alias):
    class Migration(Mapper):
        raised = False

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 40" and not self.raised:
                type(self).raised = True
                raise ValueError("only once")

    make_cities(db_alias, 100)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 100)
    assert get_visits(db_alias) == [1]


def test_a_simple_migration_that_fails_is_rolled_back_and_retried(db_alias):
    class Migration(SimpleMigration):
        calls = 0

        def operation(self, db_alias):
            type(self).calls += 1
            City.objects.using(db_alias).update(visits=models.F("visits") + 1)
            if broken:
                raise ValueError("not yet")

    make_cities(db_alias, 10)
    broken.add("anything")
    migration = make(Migration)
    progress = run(migration, db_alias)
    assert (progress.status, progress.error, Migration.calls) == ("failed", "ValueError: not yet", 1)
    assert get_visits(db_alias) == [0]
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [1]


def test_a_deferred_constraint_that_fails_at_commit_is_the_objects_failure(db_alias):
    from tests.testapp.models import Tag

    class Migration(MapperMigration):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1
            city.save()
            Tag(city_id=-1 if city.name in broken else city.pk, word="x").save(using=db_alias)

    make_cities(db_alias, 60)
    broken.add("City 33")
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("failed", 1, 33)
    assert City.objects.using(db_alias).filter(visits=1).count() == 33


def test_retry_later_rests_the_shard_and_counts_no_failure(db_alias):
    class Migration(Mapper):
        asked = 0

        def operation(self, city, db_alias):
            if self.asked < 2 and city.name == "City 50":
                type(self).asked += 1
                raise RetryLater(0.2, "the API said 429")
            super().operation(city, db_alias)

    make_cities(db_alias, 100)
    waited = set()
    migration = make(Migration)

    def look():
        waited.update(MigrationShard.objects.using(db_alias).values_list("waiting_for", flat=True))

    progress = run(migration, db_alias, on_progress=look)
    assert (progress.status, progress.failed) == ("applied", 0)
    assert "the API said 429" in waited
    assert get_visits(db_alias) == [1]


def test_transient_errors_are_repeated(db_alias):
    class Migration(Mapper):
        transient_errors = (ConnectionError,)
        raised = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 40" and self.raised < 3:
                type(self).raised += 1
                raise ConnectionError("reset by peer")

    make_cities(db_alias, 100)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed) == ("applied", 0)
    assert get_visits(db_alias) == [1]


def test_a_locked_sqlite_is_waited_for():
    import threading

    from massmigration.databases.transactions import write_transaction

    make_cities(DEFAULT_DB_ALIAS, 100)
    held, release = threading.Event(), threading.Event()

    def hold():
        with write_transaction(DEFAULT_DB_ALIAS):
            City.objects.filter(name="nobody").update(note="")
            held.set()
            release.wait(20)

    def migrate():
        assert held.wait(20)
        connections[DEFAULT_DB_ALIAS].cursor().execute("PRAGMA busy_timeout = 50")
        migration = make(Mapper)
        threading.Timer(0.5, release.set).start()
        start(migration, DEFAULT_DB_ALIAS)
        return work(migration, DEFAULT_DB_ALIAS)

    _, progress = in_threads(hold, migrate)
    assert progress.status == "applied"
    assert get_visits(DEFAULT_DB_ALIAS) == [1]


@pytest.mark.needs_postgres
def test_a_connection_that_is_cut_off_is_opened_again():
    class Migration(Mapper):
        batch_size = 20
        was_cut = False

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 50" and not self.was_cut:
                type(self).was_cut = True
                with connections[db_alias].cursor() as cursor:
                    cursor.execute("SELECT pg_backend_pid()")
                    pid = cursor.fetchone()[0]

                def cut():
                    with connections[db_alias].cursor() as other:
                        other.execute("SELECT pg_terminate_backend(%s)", [pid])

                in_threads(cut)

    make_cities("postgres", 100)
    progress = run(Migration, "postgres")
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 100)
    assert get_visits("postgres") == [1]


def test_long_messages_are_cut_with_a_mark(db_alias):
    class Migration(Mapper):
        def operation(self, city, db_alias):
            secret = "password"  # a local variable, which must not get into the traceback
            raise ValueError("x" * 10_000 + secret[:0])

    make_cities(db_alias, 1)
    migration = make(Migration)
    progress = run(migration, db_alias)
    failure = MigrationFailure.objects.using(db_alias).get()
    assert len(progress.error) < 2100
    assert failure.message.endswith("(cut)")
    assert "'password'" not in failure.traceback


def test_broken_str_of_an_object_does_not_hide_its_failure(db_alias, monkeypatch):
    def explode(self):
        raise TypeError("no str")

    monkeypatch.setattr(City, "__str__", explode)
    make_cities(db_alias, 3)
    broken.add("City 1")
    assert run(Mapper, db_alias).status == "failed"
    assert "TypeError" in MigrationFailure.objects.using(db_alias).get().object_repr


def test_an_operational_error_that_is_no_transient_one_is_a_failure(db_alias):
    class Migration(Mapper):
        def operation(self, city, db_alias):
            raise OperationalError("no such thing")

    make_cities(db_alias, 3)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.failed) == ("failed", 1)
