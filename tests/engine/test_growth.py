"""The open end of the last range: what the site adds is visited; what the operation adds does not keep it going."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from django.db import connections
from django.db.models import F

from massmigration import BatchMigration, MapperMigration, executor, recorder
from massmigration.engine import growth
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import release
from massmigration.engine.refusals import FinishRefused
from massmigration.engine.slice import Slice
from massmigration.engine.tables import get_table
from massmigration.models import MigrationShard
from tests.engine.support import AUTHOR, claim_range, make, run, start, work
from tests.testapp.models import City, CompositeRow, TextRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

COUNT = 10


class Copies(MapperMigration):
    """It inserts into the table that it goes through."""

    batch_size = 5
    model = City

    def get_queryset(self, db_alias):
        return self.model.objects.using(db_alias)

    def operation(self, obj, db_alias):
        self.model.objects.using(db_alias).filter(pk=obj.pk).update(visits=F("visits") + 1)
        self.copy(obj)
        obj.save(force_insert=True)

    def copy(self, obj):
        obj.pk = None


class CopiesText(Copies):
    model = TextRow

    def copy(self, obj):
        obj.pk = f"{obj.pk}x"


class CopiesComposite(Copies):
    model = CompositeRow

    def operation(self, obj, db_alias):
        rows = CompositeRow.objects.using(db_alias)
        rows.filter(tenant=obj.tenant, number=obj.number).update(visits=F("visits") + 1)
        rows.create(tenant=obj.tenant, number=obj.number + 1_000)


class Moves(BatchMigration):
    batch_size = 5

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(id=F("id") + 1000, visits=F("visits") + 1)


def make_rows(model, db_alias):
    if model is City:
        City.objects.using(db_alias).bulk_create(City(name=str(number)) for number in range(COUNT))
    elif model is TextRow:
        TextRow.objects.using(db_alias).bulk_create(TextRow(pk=f"z{number:03}") for number in range(COUNT))
    else:
        rows = [CompositeRow(tenant="a", number=number) for number in range(COUNT)]
        CompositeRow.objects.using(db_alias).bulk_create(rows)


def guard(model, db_alias, most=40 * COUNT):
    """Stop a run that would not end, so that a test fails instead."""
    return lambda: model.objects.using(db_alias).count() > most


@pytest.mark.parametrize(
    ("definition", "model"), [(Copies, City), (CopiesText, TextRow), (CopiesComposite, CompositeRow)]
)
def test_an_operation_that_copies_its_rows_ahead_fails_with_a_sentence(db_alias, definition, model):
    if definition is CopiesText:  # a copy lies right after its row: its range never gets to the end
        definition = type("Migration", (CopiesText,), {"copy": lambda self, obj: setattr(obj, "pk", f"z{obj.pk}")})
    make_rows(model, db_alias)
    progress = run(definition, db_alias, should_stop=guard(model, db_alias))
    assert (progress.status, progress.reason) == ("failed", "not_empty")
    assert "bounded = True" in progress.error
    assert "ahead of its cursor" in progress.error
    assert model.objects.using(db_alias).count() <= 8 * COUNT


def test_an_operation_that_moves_its_rows_ahead_fails_with_a_sentence(db_alias):
    make_rows(City, db_alias)
    rounds = itertools.count()
    progress = run(Moves, db_alias, should_stop=lambda: next(rounds) > 200)
    assert (progress.status, progress.reason) == ("failed", "not_empty")
    assert City.objects.using(db_alias).count() == COUNT


@pytest.mark.parametrize(
    ("definition", "model"), [(Copies, City), (CopiesText, TextRow), (CopiesComposite, CompositeRow), (Moves, City)]
)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_bounded_migration_ends_at_the_largest_key_of_its_planning(db_alias, definition, model, shards):
    if definition is CopiesText:
        definition = type("Migration", (CopiesText,), {"copy": lambda self, obj: setattr(obj, "pk", f"z{obj.pk}")})
    elif definition is Moves and shards > 1:
        definition = type("Migration", (Moves,), {"serial": True})
    make_rows(model, db_alias)
    bounded = type("Migration", (definition,), {"bounded": True, "shard_count": shards})
    progress = run(bounded, db_alias, should_stop=guard(model, db_alias))
    assert (progress.status, progress.processed) == ("applied", COUNT)
    assert model.objects.using(db_alias).filter(visits=1).count() == COUNT


def test_a_bounded_migration_of_an_empty_table_ends(db_alias):
    bounded = type("Migration", (Copies,), {"bounded": True})
    migration = make(bounded)
    start(migration, db_alias)
    claim_range(migration, db_alias)  # planned
    make_rows(City, db_alias)
    recorder.free_shards(recorder.get_record(migration.key, db_alias).attempt_uuid, db_alias)
    progress = work(migration, db_alias, should_stop=guard(City, db_alias))
    assert (progress.status, progress.processed) == ("applied", 0)


def test_bounded_set_before_a_retry_ends_the_run_where_it_was_planned_to(db_alias):
    make_rows(City, db_alias)
    migration = make(Copies)
    assert run(migration, db_alias, should_stop=guard(City, db_alias)).status == "failed"
    count = City.objects.using(db_alias).count()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    corrected = make(type("Migration", (Copies,), {"bounded": True}))
    progress = work(corrected, db_alias, should_stop=guard(City, db_alias))
    assert (progress.status, City.objects.using(db_alias).count()) == ("applied", count)


@pytest.mark.parametrize(
    ("db_alias", "model"), [("default", City), pytest.param("postgres", TextRow, marks=pytest.mark.needs_postgres)]
)
def test_a_bounded_range_ends_where_it_was_planned_to_although_it_is_cut_behind(db_alias, model):
    """Most of what an idle worker finds ahead are copies, so that it cuts among them."""
    count = 4_000

    def get_key(number):
        return number if model is City else f"z{number:05}"

    class CopiesMany(BatchMigration):
        bounded = True
        batch_size = 500
        shard_count = 1

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, queryset, db_alias):
            keys = list(queryset.values_list("pk", flat=True))
            numbers = [int(str(key).lstrip("z")) for key in keys]
            queryset.update(visits=F("visits") + 1)
            model.objects.using(db_alias).bulk_create(model(pk=get_key(number + count)) for number in numbers)

    model.objects.using(db_alias).bulk_create(model(pk=get_key(number)) for number in range(1, count + 1))
    migration = make(CopiesMany)
    start(migration, db_alias)
    shard, batches = claim_range(migration, db_alias), []
    Slice(shard, migration, db_alias, should_stop=lambda: len(batches) > 5, on_batch=lambda: batches.append(1)).run()
    shard = claim_range(migration, db_alias)
    new = get_kind(migration).split_largest(recorder.get_shards(shard.attempt_uuid, db_alias), db_alias)
    assert new is not None and new.lower > (shard.extension or {})["planned"]
    release(shard, db_alias)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", count)
    assert model.objects.using(db_alias).count() == 2 * count


def test_a_corrected_operation_visits_what_the_wrong_one_made(db_alias):
    class Corrected(Copies):
        def operation(self, city, db_alias):
            City.objects.using(db_alias).filter(pk=city.pk).update(visits=F("visits") + 1)

    make_rows(City, db_alias)
    migration = make(Copies)
    assert run(migration, db_alias, should_stop=guard(City, db_alias)).status == "failed"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(make(Corrected), db_alias, should_stop=guard(City, db_alias)).status == "applied"
    assert City.objects.using(db_alias).filter(visits=0).count() == 0


@pytest.mark.parametrize("db_alias", ["default"])
def test_a_retry_without_a_correction_fails_again(db_alias):
    make_rows(City, db_alias)
    migration = make(Copies)
    assert run(migration, db_alias, should_stop=guard(City, db_alias)).status == "failed"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias, should_stop=guard(City, db_alias))
    assert (progress.status, progress.reason) == ("failed", "not_empty")


class Visits(MapperMigration):
    batch_size = 5

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        City.objects.using(db_alias).filter(pk=city.pk).update(visits=F("visits") + 1)


def test_rows_that_come_in_at_the_end_are_visited(db_alias):
    class Migration(Visits):
        rounds = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "last" and self.rounds < 4:
                type(self).rounds += 1
                City.objects.using(db_alias).create(name="last")

    make_rows(City, db_alias)
    City.objects.using(db_alias).create(name="last")
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", COUNT + 5)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_extensions_that_get_smaller_are_followed_however_many_there_are(db_alias):
    class Migration(Visits):
        """Each row of the first half makes one: 16, 8, 4 … and again, as on a site with ups and downs."""

        left = [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "last" and self.left:
                rows = [City(name="new") for _ in range(self.left.pop(0))]
                rows[-1].name = "last"
                City.objects.using(db_alias).bulk_create(rows)

    make_rows(City, db_alias)
    City.objects.using(db_alias).create(name="last")
    assert run(Migration, db_alias, should_stop=guard(City, db_alias)).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_rows_that_the_site_keeps_adding_fail_no_run(db_alias, monkeypatch):
    """As many come in during each extension, until the run has taken notice of them, or for some seconds."""

    class Migration(Visits):
        batch_size = 5
        outlasts_the_site = False

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            type(self).outlasts_the_site = has_ended.is_set()
            time.sleep(0.01)

    has_ended, is_settled = threading.Event(), threading.Event()
    settle = growth.settle

    def settle_and_tell(*args):
        extension = settle(*args)
        is_settled.set()
        return extension

    def add():
        end = time.monotonic() + 3
        while time.monotonic() < end and not is_settled.is_set():
            City.objects.using(db_alias).bulk_create(City(name="new") for _ in range(3))
            time.sleep(0.02)
        has_ended.set()
        connections[db_alias].close()

    monkeypatch.setattr("massmigration.engine.kinds.rows.settle", settle_and_tell)
    make_rows(City, db_alias)
    site = threading.Thread(target=add)
    site.start()
    progress = run(Migration, db_alias)
    site.join()
    assert progress.status == "applied"
    if Migration.outlasts_the_site:
        assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_an_open_range_that_is_cut_is_still_followed_no_further_than_noted(db_alias):
    make_rows(City, db_alias)
    migration = make(type("Migration", (Copies,), {"shard_count": 1}))
    attempt_uuid = start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    assert shard.extension is not None
    assert shard.extension["largest"] == shard.extension["planned"] is not None
    middle = migration_middle(db_alias)
    new = recorder.ShardMaker(db_alias).split_shard(recorder.get_shard(shard.pk, db_alias), middle, 7)
    assert new.extension == shard.extension
    recorder.free_shards(attempt_uuid, db_alias)
    progress = work(migration, db_alias, should_stop=guard(City, db_alias))
    assert (progress.status, progress.reason) == ("failed", "not_empty")


def migration_middle(db_alias):
    keys = sorted(City.objects.using(db_alias).values_list("pk", flat=True))
    return str(keys[len(keys) // 2])


@pytest.mark.parametrize("bounded", [False, True])
def test_a_range_that_an_earlier_version_planned_is_followed_from_now_on(db_alias, bounded):
    make_rows(City, db_alias)
    migration = make(type("Migration", (Copies,), {"shard_count": 1, "bounded": bounded}))
    attempt_uuid = start(migration, db_alias)
    claim_range(migration, db_alias)
    MigrationShard.objects.using(db_alias).update(extension=None)
    recorder.free_shards(attempt_uuid, db_alias)
    progress = work(migration, db_alias, should_stop=guard(City, db_alias))
    assert progress.status == ("applied" if bounded else "failed")


def test_another_pass_notes_its_own_end(db_alias):
    class Migration(Copies):
        """Copies match the filter, which the second pass goes over."""

        bounded = True
        until_empty = True

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits=0)

        def copy(self, city):
            city.pk, city.visits = None, 0 if city.note == "" else 1
            city.note = "a copy"

    make_rows(City, db_alias)
    progress = run(Migration, db_alias, should_stop=guard(City, db_alias))
    assert progress.status == "applied"
    assert not City.objects.using(db_alias).filter(visits=0).exists()
    ends = {
        shard.pass_number: shard.extension["planned"]
        for shard in MigrationShard.objects.using(db_alias)
        if shard.extension
    }
    assert set(ends) == {1, 2} and int(ends[2]) > int(ends[1])


def test_an_operation_is_blamed_after_a_second_look_only(db_alias):
    """The site may have stopped adding rows just before the first one."""
    make_rows(City, db_alias)
    table = get_table(make(Visits), db_alias)
    largest = table.codec.encode(City.objects.using(db_alias).latest("pk").pk)
    shard = MigrationShard(key="testapp:0001_test")
    first = growth.Extension(planned=None, largest=largest, rows=3, count=growth.MAX_EXTENSIONS, noted_at=0.0)
    assert growth.settle(table, shard, growth.RowsAhead(first, 0.0)) == first
    second = growth.Extension(**{**first, "count": growth.MAX_EXTENSIONS + 1})
    with pytest.raises(FinishRefused, match="ahead of its cursor"):
        growth.settle(table, shard, growth.RowsAhead(second, 0.0))
