"""What went wrong with django-mass-migration goes right: one test for each of its faults."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import F

from massmigration import BatchMigration, MapperMigration, api, executor, recorder, tasks, worker
from massmigration.exceptions import BackendUnreachable
from massmigration.models import MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR, change, claim_range, get_progress, in_threads, make, run, start, work
from tests.faults.queues import ListBackend
from tests.faults.support import get_visits, make_cities
from tests.testapp.models import City, CompositeRow, SparseInt, TextRow, UuidRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

KEY = "testapp:0001_writes_back"


@pytest.fixture(autouse=True)
def files(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}


@pytest.fixture
def queue(settings):
    """Make the files of these tests run on a queue that the test delivers."""
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    ListBackend.empty()
    yield ListBackend
    ListBackend.empty()


class Visit(MapperMigration):
    update_fields = ["visits"]
    model: Any = City

    def get_queryset(self, db_alias):
        return self.model.objects.using(db_alias)

    def operation(self, obj, db_alias):
        obj.visits += 1


class SetFlag(Visit):
    update_fields = ["flag", "visits"]
    shard_count = 4

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, obj, db_alias):
        super().operation(obj, db_alias)
        obj.flag = True


class SaveFlag(SetFlag):
    update_fields = []

    def operation(self, obj, db_alias):
        super().operation(obj, db_alias)
        obj.save(update_fields=["flag", "visits"])


class UpdateFlag(BatchMigration):
    shard_count = 4

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, queryset, db_alias):
        queryset.update(flag=True, visits=F("visits") + 1)


@pytest.mark.parametrize(("definition", "count"), [(SetFlag, 20_000), (UpdateFlag, 20_000), (SaveFlag, 2_000)])
def test_an_operation_that_changes_its_own_filter_leaves_none(definition, count, db_alias):
    make_cities(db_alias, count)
    progress = run(definition, db_alias)
    assert (progress.status, progress.processed) == ("applied", count)
    assert not City.objects.using(db_alias).filter(flag=False).exists()
    assert get_visits(db_alias) == {1}


class OneIsBad(Visit):
    batch_size = 50
    is_mended = False

    def operation(self, obj, db_alias):
        if obj.name == "City 777" and not self.is_mended:
            raise ValueError("cannot be worked")
        super().operation(obj, db_alias)


def test_one_bad_row_fails_the_run_and_a_retry_goes_on_from_there(db_alias):
    make_cities(db_alias, 1_000)
    migration = make(OneIsBad)
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "operation_error", 1)
    assert not api.migration_is_applied(migration.key, db_alias)
    done_before = progress.processed
    assert done_before
    change(migration, is_mended=True)
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed, progress.failed) == ("applied", 1_000, 0)
    assert get_visits(db_alias) == {1}


def test_a_dead_workers_shard_goes_on_from_its_cursor(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.2
    make_cities(db_alias, 300)
    migration = make(Visit)
    change(migration, batch_size=50)
    start(migration, db_alias)
    claim_range(migration, db_alias, "dead")
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 300)
    assert get_visits(db_alias) == {1}


def test_a_shard_longer_than_a_slice_ends(db_alias, queue, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    make_cities(db_alias, 600)
    api.start_migration(KEY, db_alias)
    while queue.waiting:
        queue.deliver(queue.waiting.pop(0))
    progress = api.get_progress(KEY, db_alias)
    assert (progress.status, progress.processed) == ("applied", 600)
    assert len(queue.delivered) > 30  # slices of one batch or two
    assert get_visits(db_alias) == {1}


@pytest.mark.parametrize("seed", range(3))
def test_tasks_that_come_twice_late_and_shuffled_do_nothing_twice(seed, db_alias, queue, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.02
    make_cities(db_alias, 600)
    api.start_migration(KEY, db_alias)
    queue.deliver_badly(random.Random(seed))
    progress = api.get_progress(KEY, db_alias)
    assert (progress.status, progress.processed, progress.shards) == ("applied", 600, 6)
    assert get_visits(db_alias) == {1}
    for task in list(queue.delivered):
        queue.deliver(task)
    assert api.get_progress(KEY, db_alias) == progress
    assert get_visits(db_alias) == {1}


def test_a_task_of_an_earlier_attempt_does_nothing(db_alias, queue):
    make_cities(db_alias, 100)
    api.start_migration(KEY, db_alias)
    queue.deliver_badly(random.Random(1))
    old = list(queue.delivered)
    api.restart_migration(KEY, db_alias)
    for task in old:
        queue.deliver(task)
    assert get_visits(db_alias) == {1}
    queue.deliver_badly(random.Random(2))
    assert api.get_progress(KEY, db_alias).status == "applied"
    assert get_visits(db_alias) == {2}


@needs_postgres
@pytest.mark.parametrize("seed", range(3))
def test_tasks_that_come_twice_at_the_same_moment_do_nothing_twice(seed, queue, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.02
    make_cities("postgres", 600)
    api.start_migration(KEY, "postgres")
    while queue.waiting:
        waiting = queue.waiting * 2
        queue.waiting.clear()
        random.Random(seed).shuffle(waiting)
        for number in range(0, len(waiting), 4):
            in_threads(*(lambda task=task: queue.deliver(task) for task in waiting[number : number + 4]))
    progress = api.get_progress(KEY, "postgres")
    assert (progress.status, progress.processed, progress.shards) == ("applied", 600, 6)
    assert get_visits("postgres") == {1}


@needs_postgres
def test_planning_twice_at_the_same_moment_makes_the_shards_once(queue):
    make_cities("postgres", 600)
    record = api.start_migration(KEY, "postgres")
    assert record.attempt_uuid is not None
    plan = MigrationShard.make_id(record.attempt_uuid, MigrationShard.PLAN)
    in_threads(*[lambda: tasks.run_shard(plan, "postgres")] * 4)
    shards = recorder.get_shards(record.attempt_uuid, "postgres")
    assert [shard.number for shard in shards if shard.kind == MigrationShard.RANGE] == [0, 1, 2, 3, 4, 5]
    queue.deliver_badly(random.Random(0))
    assert api.get_progress(KEY, "postgres").processed == 600
    assert get_visits("postgres") == {1}


class SmallShards(Visit):
    model = SparseInt
    shard_count = 8
    batch_size = 3


def test_five_workers_at_once_always_end(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 5
    SparseInt.objects.using(db_alias).bulk_create(SparseInt(id=number * 10) for number in range(-60, 60))
    migration = make(SmallShards)
    for repetition in range(1, 21):
        attempt_uuid = start(migration, db_alias)
        in_threads(*[lambda uuid=attempt_uuid: worker.work(make(SmallShards), db_alias, uuid)] * 5)
        progress = get_progress(migration.key, db_alias, migration)
        assert (progress.status, progress.processed) == ("applied", 120), f"repetition {repetition}"
        visits = set(SparseInt.objects.using(db_alias).values_list("visits", flat=True))
        assert visits == {repetition}, "a row at the edge of a range was visited twice or never"
        executor.reset(migration.key, db_alias, AUTHOR)


def test_reset_and_run_again_at_once_does_all_rows(db_alias, settings):
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 60
    make_cities(db_alias, 500)
    migration = make(Visit)
    for repetition in range(1, 4):
        progress = run(migration, db_alias)
        assert (progress.status, progress.processed) == ("applied", 500)
        assert get_visits(db_alias) == {repetition}
        executor.reset(migration.key, db_alias, AUTHOR)


def test_a_queue_that_is_down_fails_the_launch_and_a_retry_works(db_alias, settings):
    make_cities(db_alias, 100)
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.UnreachableBackend"
    with pytest.raises(BackendUnreachable, match="broker refused"):
        api.start_migration(KEY, db_alias)
    progress = api.get_progress(KEY, db_alias)
    assert (progress.status, progress.reason) == ("failed", "backend_unreachable")
    assert "broker refused" in (progress.error or "")
    with pytest.raises(BackendUnreachable):
        api.retry_migration(KEY, db_alias)
    assert api.get_progress(KEY, db_alias).status == "failed"
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    ListBackend.empty()
    api.retry_migration(KEY, db_alias)
    ListBackend.deliver_badly(random.Random(0))
    progress = api.get_progress(KEY, db_alias)
    assert (progress.status, progress.reason, progress.processed) == ("applied", None, 100)
    assert get_visits(db_alias) == {1}


def test_an_empty_queryset_is_applied(db_alias):
    progress = run(Visit, db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 0, 0)


ROWS: dict[Any, Callable[[], list[Any]]] = {
    SparseInt: lambda: [SparseInt(id=number) for number in (*range(-40, 41), -(2**40), 2**40)],
    TextRow: lambda: [TextRow(id=f"{letter}{number}") for letter in "aAzZäñ_ " for number in range(15)],
    UuidRow: lambda: [UuidRow(id=uuid.uuid4()) for _ in range(150)],
    CompositeRow: lambda: [CompositeRow(tenant=tenant, number=number) for tenant in "abc" for number in range(-20, 20)],
}


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_each_kind_of_key_is_split_and_each_row_visited_once(model, db_alias):
    rows = ROWS[model]()
    model.objects.using(db_alias).bulk_create(rows)
    definition = type("Migration", (SmallShards,), {"model": model, "shard_count": 5})
    progress = run(definition, db_alias)
    assert (progress.status, progress.processed) == ("applied", len(rows))
    assert set(model.objects.using(db_alias).values_list("visits", flat=True)) == {1}


class WhileOthersWrite(Visit):
    """In the middle of its run the site adds rows behind the largest key and deletes some."""

    batch_size = 20
    shard_count = 3

    def operation(self, obj, db_alias):
        super().operation(obj, db_alias)
        if obj.name == "City 30":
            make_cities(db_alias, 90)
            names = [f"City {number}" for number in (0, 1, 2, 30, 31, 32, 33, 60, 61, 150, 151, 298, 299)]
            City.objects.using(db_alias).filter(name__in=names).delete()


def test_rows_added_are_visited_and_rows_deleted_skip_no_others(db_alias):
    make_cities(db_alias, 300)
    assert run(WhileOthersWrite, db_alias).status == "applied"
    assert get_visits(db_alias) == {1}
    assert City.objects.using(db_alias).count() > 350
