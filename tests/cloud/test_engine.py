"""How the engine works rows on Datastore and Firestore: failures, contention, refusals, and no hot record."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.db.models import F
from google.api_core.exceptions import Aborted

from massmigration import (
    BatchMigration,
    CustomMigration,
    RetryLater,
    SimpleMigration,
    executor,
    recorder,
    worker,
)
from massmigration.databases.registry import get_database, is_transient
from massmigration.databases.transactions import run_write
from massmigration.engine.leases import release
from massmigration.exceptions import DatabaseLocked, InvalidDefinition
from massmigration.models import MigrationFailure, MigrationShard
from tests.cloud.app.models import Number, Row, Token, Word
from tests.cloud.filling import store
from tests.cloud.support import Save, Visit, get_visits, make, make_rows, quick, traffic  # noqa: F401
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, run, start, work

broken: set[str] = set()


@pytest.fixture(autouse=True)
def mend():
    broken.clear()
    yield
    broken.clear()


class Mapper(Visit):
    batch_size = 20

    def operation(self, row, db_alias):
        if row.name in broken:
            raise ValueError(f"{row.name} is broken")
        super().operation(row, db_alias)


class MapperThatSaves(Mapper):
    update_fields = ()

    def operation(self, row, db_alias):
        super().operation(row, db_alias)
        row.save(using=db_alias, force_update=True)


class Batch(BatchMigration):
    batch_size = 20

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        for row in queryset:
            if row.name in broken:
                raise ValueError(f"{row.name} is broken")
        queryset.update(visits=F("visits") + 1)


class Custom(CustomMigration):
    batch_size = 20

    def get_items(self, shard, cursor, db_alias):
        rows = Row.objects.using(db_alias).order_by("pk")
        if cursor is not None:
            rows = rows.filter(pk__gt=cursor)
        for row in rows:
            yield row.pk, [row.pk, row.name]

    def operation(self, item, db_alias):
        if item[1] in broken:
            raise ValueError(f"{item[1]} is broken")
        Row.objects.using(db_alias).filter(pk=item[0]).update(visits=F("visits") + 1)


class Simple(SimpleMigration):
    def operation(self, db_alias):
        for row in Row.objects.using(db_alias).order_by("pk"):
            if row.name in broken:
                raise ValueError(f"{row.name} is broken")
            row.visits += 1
            row.save(using=db_alias, force_update=True)


KINDS = [Mapper, MapperThatSaves, Batch, Custom]


@pytest.mark.parametrize("definition", [*KINDS, Simple])
def test_each_kind_visits_every_row_once(db_alias, definition):
    make_rows(db_alias, 45)
    progress = run(make(definition), db_alias)
    assert (progress.status, progress.failed) == ("applied", 0)
    assert progress.processed == (1 if definition is Simple else 45)
    assert progress.changed == (45 if definition is Mapper else None)
    assert get_visits(db_alias) == {1: 45}


@pytest.mark.parametrize("definition", KINDS)
def test_an_empty_table_is_applied(db_alias, definition):
    progress = run(make(definition), db_alias)
    assert (progress.status, progress.processed) == ("applied", 0)


@pytest.mark.parametrize("definition", KINDS)
def test_one_bad_row_stops_the_run_and_a_retry_goes_on_there(db_alias, definition):
    make_rows(db_alias, 45)
    names = [row.name for row in Row.objects.using(db_alias).order_by("pk")]
    broken.add(names[27])
    migration = make(definition)
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "operation_error", 1)
    assert progress.processed == 27
    assert f"{names[27]} is broken" in progress.error
    assert get_visits(db_alias) == {0: 18, 1: 27}  # those before it once, although kinds that save cannot roll back
    [failure] = recorder.get_failures(recorder.get_record(migration.key, db_alias).attempt_uuid, db_alias)
    assert (failure.error_class, failure.is_passed) == ("builtins.ValueError", False)
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 45)
    assert get_visits(db_alias) == {1: 45}


@pytest.mark.parametrize("definition", KINDS)
def test_skip_goes_on_and_a_retry_takes_the_failed_rows_only(db_alias, definition):
    make_rows(db_alias, 45)
    broken.update({"row 0", "row 17", "row 18", "row 44"})
    migration = make(definition, on_error="skip")
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "failures_open", 4)
    assert progress.processed == 41
    assert get_visits(db_alias) == {0: 4, 1: 41}
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 45)
    assert get_visits(db_alias) == {1: 45}


def test_more_failures_than_a_query_can_name_are_skipped_kept_and_retried(db_alias):
    make_rows(db_alias, 60)
    broken.update(f"row {number}" for number in range(60) if number % 10)
    migration = make(Mapper, on_error="skip", max_failures=1_000, batch_size=50)
    progress = run(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("failed", 54, 6)
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 60)
    assert get_visits(db_alias) == {1: 60}


def test_too_many_failures_stop_the_run(db_alias):
    make_rows(db_alias, 40)
    broken.update(f"row {number}" for number in range(40))
    progress = run(make(Mapper, on_error="skip", max_failures=3), db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "max_failures", 4)


def test_a_simple_migration_that_fails_begins_again_with_a_retry(db_alias):
    make_rows(db_alias, 10)
    broken.add("row 5")
    migration = make(Simple)
    assert run(migration, db_alias).status == "failed"
    broken.clear()
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(get_visits(db_alias)) <= {1, 2}  # at least once: what it saved before it failed stays


@pytest.mark.parametrize("definition", [Mapper, MapperThatSaves])
def test_retry_later_rests_the_shard_and_repeats_nothing(db_alias, definition: Any):
    make_rows(db_alias, 30)
    asked: Counter[str] = Counter()

    class Migration(definition):
        def operation(self, row, db_alias):
            if row.name == "row 7" and asked["row 7"] < 2:
                asked["row 7"] += 1
                raise RetryLater(0.1, "the other side sleeps")
            super().operation(row, db_alias)

    progress = run(make(Migration), db_alias)
    assert (progress.status, progress.failed, asked["row 7"]) == ("applied", 0, 2)
    assert get_visits(db_alias) == {1: 30}


def test_callbacks_wait_until_the_rows_are_written(db_alias):
    sent = []

    class Migration(Mapper):
        on_error = "skip"

        def operation(self, row, db_alias):
            transaction.on_commit(lambda: sent.append((row.name, get_visits_of(row))), using=db_alias)
            super().operation(row, db_alias)

    def get_visits_of(row):
        return Row.objects.using(db_alias).get(pk=row.pk).visits

    make_rows(db_alias, 10)
    broken.add(Row.objects.using(db_alias).order_by("pk")[4].name)
    assert run(make(Migration), db_alias).status == "failed"
    names = [row.name for row in Row.objects.using(db_alias).order_by("pk") if row.name not in broken]
    assert sent == [(name, 1) for name in names]


@pytest.mark.parametrize("model", [Token, Word, Number, Row])
def test_every_kind_of_key_is_gone_through(db_alias, model):
    make_key: dict[Any, Any] = {
        Token: lambda number: uuid.uuid4(),
        Word: lambda number: f"{'aZäñ_ '[number % 6]}{number}",
        Number: lambda number: number - 16 if number != 16 else 2**50,  # Datastore has no key 0
        Row: lambda number: None,
    }
    rows = [model(pk=make_key[model](number)) for number in range(32)]
    store(rows, db_alias)
    progress = run(make(Visit, model=model, shard_count=4, batch_size=5), db_alias)
    assert (progress.status, progress.processed) == ("applied", 32)
    assert get_visits(db_alias, model) == {1: 32}


class TestRefusals:
    QUERYSETS = {
        "two fields compared": lambda rows: rows.filter(visits__gt=1, name__gt="a"),
        "one field compared": lambda rows: rows.filter(visits__gt=1),
        "a text": lambda rows: rows.filter(note="x"),
        "a slice": lambda rows: rows[:5],
        "values": lambda rows: rows.values("name"),
        "a union": lambda rows: rows.union(rows),
    }

    @pytest.mark.parametrize("name", QUERYSETS)
    def test_what_cannot_be_worked_is_refused_at_the_start(self, db_alias, name, traffic):  # noqa: F811
        make_rows(db_alias, 5)
        choose = self.QUERYSETS[name]
        migration = make(Visit, get_queryset=lambda self, alias: choose(Row.objects.using(alias)))
        with pytest.raises(InvalidDefinition) as refusal:
            executor.start(migration, db_alias, AUTHOR, enqueue=False)
        sentence = str(refusal.value)
        assert sentence.startswith(f"The queryset of {migration.key} ") and sentence.endswith(".")
        assert recorder.get_record(migration.key, db_alias) is None
        traffic.queries.clear()  # the refused query itself was tried

    def test_a_queryset_of_another_database_is_refused(self, db_alias):
        migration = make(Visit, get_queryset=lambda self, alias: Row.objects.using("default"))
        with pytest.raises(InvalidDefinition, match="bound to database 'default'"):
            executor.start(migration, db_alias, AUTHOR, enqueue=False)

    @pytest.mark.parametrize("order", ["name", "-visits", "-pk"])
    def test_an_order_is_left_out(self, db_alias, order):
        make_rows(db_alias, 15)
        migration = make(Visit, get_queryset=lambda self, alias: Row.objects.using(alias).order_by(order))
        assert run(migration, db_alias).status == "applied"
        assert get_visits(db_alias) == {1: 15}

    def test_equal_values_are_all_right(self, db_alias):
        make_rows(db_alias, 10)
        make_rows(db_alias, 5, flag=True)
        migration = make(Visit, get_queryset=lambda self, alias: Row.objects.using(alias).filter(flag=True))
        assert run(migration, db_alias).processed == 5
        assert get_visits(db_alias) == {0: 10, 1: 5}

    def test_fewer_shards_are_asked_for(self, db_alias):
        migration = make(Custom, get_shards=lambda self, alias: list(range(401)))
        progress = run(migration, db_alias)
        assert (progress.status, progress.reason) == ("failed", "operation_error")
        assert "has 401 shards" in progress.error and "Make fewer" in progress.error


class TestContention:
    def test_real_contention_is_an_operational_error_that_passes(self, db_alias):
        row = Row.objects.using(db_alias).create(name="hot")
        barrier = threading.Barrier(4)
        errors: list[BaseException] = []

        def write():
            barrier.wait(30)
            for _ in range(3):
                try:
                    with transaction.atomic(using=db_alias):
                        mine = Row.objects.using(db_alias).get(pk=row.pk)
                        time.sleep(0.02)
                        mine.visits += 1
                        mine.save(using=db_alias)
                except OperationalError as error:
                    errors.append(error)

        in_threads(*[write] * 4)
        assert errors
        for error in errors:
            assert isinstance(error.__cause__, Aborted)
            assert get_database(db_alias).is_contention(error) and is_transient(error)
        assert Row.objects.using(db_alias).get().visits == 12 - len(errors)

    def test_run_write_repeats_until_every_write_is_done(self, db_alias):
        row = Row.objects.using(db_alias).create(name="hot")
        tries: Counter[int] = Counter()

        def write(number: int) -> None:
            def once() -> None:
                tries[number] += 1
                mine = Row.objects.using(db_alias).get(pk=row.pk)
                mine.visits += 1
                mine.save(using=db_alias)

            for _ in range(2):
                run_write(db_alias, once)

        in_threads(*[lambda number=number: write(number) for number in range(4)])
        assert Row.objects.using(db_alias).get().visits == 8
        assert tries.total() > 8

    def test_who_never_gets_through_gives_up_with_a_sentence(self, db_alias):
        def write():
            raise OperationalError("contention") from Aborted("too much contention")

        with pytest.raises(DatabaseLocked, match=f"Database '{db_alias}' was kept locked.*Try again"):
            run_write(db_alias, write, patience=0.2)

    @pytest.mark.parametrize("definition", [Mapper, MapperThatSaves])
    def test_a_shard_that_others_write_meanwhile_repeats_no_saved_row(self, db_alias, definition):
        """The heartbeat and the claims of others touch the shard: that is no reason to work a batch twice."""
        make_rows(db_alias, 40)
        migration = make(definition)
        attempt_uuid = start(migration, db_alias)
        release(claim_range(migration, db_alias), db_alias)
        is_over = threading.Event()

        def disturb():
            while not is_over.wait(0.05):
                try:
                    with transaction.atomic(using=db_alias):
                        for one in recorder.get_shards(attempt_uuid, db_alias):
                            rows = MigrationShard.objects.using(db_alias).filter(pk=one.pk)
                            rows.update(waiting_for=uuid.uuid4().hex)
                except OperationalError:
                    pass  # contention, most likely: the other test is about that

        def run_to_the_end():
            try:
                return work(migration, db_alias)
            finally:
                is_over.set()

        progress, _ = in_threads(run_to_the_end, disturb)
        assert (progress.status, progress.processed) == ("applied", 40)
        assert get_visits(db_alias) == {1: 40}


def test_no_entity_is_written_more_than_once_a_second(db_alias, settings, traffic):  # noqa: F811
    del settings.MASSMIGRATION_BATCH_SECONDS
    make_rows(db_alias, 120)
    traffic.writes.clear()
    attempt_uuid = start(make(Visit, shard_count=6, batch_size=5), db_alias)
    began_at = time.monotonic()
    in_threads(*[lambda: worker.work(make(Visit, shard_count=6, batch_size=5), db_alias, attempt_uuid)] * 3)
    assert get_progress("cloudapp:0001_test", db_alias, make(Visit)).status == "applied"
    assert time.monotonic() - began_at > 5  # long enough to see
    assert get_visits(db_alias) == {1: 120}
    # The first and the last batch of a shard come with its claim and its end.
    assert traffic.get_busiest(seconds=0.8)[0] <= 3
    assert traffic.get_busiest(seconds=4.0)[0] <= 4 + 3
    hottest = Counter({key: len(moments) for key, moments in traffic.writes.items()}).most_common(1)
    assert hottest[0][1] <= 9
    assert MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).count() >= 8
    assert not MigrationFailure.objects.using(db_alias).exists()
