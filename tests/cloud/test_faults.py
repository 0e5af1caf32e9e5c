"""Kills, freezes and bad queues on Datastore and Firestore, and what went wrong with django-mass-migration there."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
from django.db.models import F

from massmigration import BatchMigration, api, executor, recorder, tasks, worker
from massmigration.exceptions import BackendUnreachable
from massmigration.models import MigrationShard
from tests.cloud.app.models import Number, Row
from tests.cloud.filling import store_rows
from tests.cloud.support import Save, Visit, get_visits, make, make_rows, quick, traffic  # noqa: F401
from tests.engine.support import AUTHOR, change, claim_range, get_progress, in_threads, run, start, work
from tests.faults import support as faults_support
from tests.faults.queues import ListBackend
from tests.faults.support import Popen, Site

SIMPLE = "cloudapp:0001_simple"
MAPPER = "cloudapp:0002_mapper"
SAVES = "cloudapp:0003_saves"
BATCH = "cloudapp:0004_batch"
CUSTOM = "cloudapp:0005_custom"
BATCH_SIZE = 20  # of these files


@pytest.fixture(autouse=True)
def files(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": None, "adminapp": None}


@pytest.fixture
def chance() -> random.Random:
    """Chance that can be repeated: MASSMIGRATION_TEST_SEED=… is printed when the test fails."""
    seed = int(os.environ.get("MASSMIGRATION_TEST_SEED", random.randrange(10**6)))
    print(f"MASSMIGRATION_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def queue(settings):
    """Make the files of these tests run on a queue that the test delivers."""
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    ListBackend.empty()
    yield ListBackend
    ListBackend.empty()


class CloudSite(Site):
    """One migration on an emulator; the pause between two batches is its brake."""

    poll_seconds = 0.1  # each look is a dozen queries

    def __init__(
        self,
        popen: Popen,
        directory: Path,
        key: str,
        db_alias: str,
        *,
        workers: int = 1,
        lease_seconds: float | None = None,
    ) -> None:
        if lease_seconds is None:  # with less, a worker that waits for the locks of the dead counts as lost itself
            lease_seconds = 6 if db_alias == "firestore" else 2
        super().__init__(popen, directory, key, db_alias, workers=workers, lease_seconds=lease_seconds)
        self._environment["DJANGO_SETTINGS_MODULE"] = "tests.cloud.quick"
        self._environment["MASSMIGRATION_TEST_BATCH_SECONDS"] = "0.2"


@pytest.fixture
def patience(monkeypatch):
    """Firestore keeps the locks of a transaction for a minute when its client is killed: others wait for that."""
    monkeypatch.setattr(faults_support, "PATIENCE_SECONDS", 300.0)


@pytest.mark.usefixtures("patience")
class TestKills:
    def test_kills_of_three_workers_that_write_back_repeat_nothing(self, db_alias, popen_manage, tmp_path, chance):
        make_rows(db_alias, 320)
        site = CloudSite(popen_manage, tmp_path, MAPPER, db_alias, workers=3)
        site.kill_often(2, chance)
        progress = api.get_progress(MAPPER, db_alias)
        assert (progress.status, progress.processed) == ("applied", 320), site.tell()
        assert get_visits(db_alias) == {1: 320}, site.tell()

    def test_workers_that_hang_and_come_back_late_repeat_nothing(self, db_alias, popen_manage, tmp_path, chance):
        make_rows(db_alias, 240)
        site = CloudSite(popen_manage, tmp_path, MAPPER, db_alias, workers=3, lease_seconds=1)
        site.freeze_often(1, chance, seconds=2.5)
        assert api.get_progress(MAPPER, db_alias).status == "applied", site.tell()
        assert get_visits(db_alias) == {1: 240}, site.tell()

    @pytest.mark.parametrize(
        ("db_alias", "key"),
        [("datastore", SAVES), ("firestore", SAVES), ("datastore", BATCH), ("datastore", CUSTOM)],
        indirect=["db_alias"],
    )
    def test_each_kill_repeats_at_most_one_batch_of_what_saves_itself(
        self, db_alias, popen_manage, tmp_path, chance, key
    ):
        make_rows(db_alias, 240)
        site = CloudSite(popen_manage, tmp_path, key, db_alias)
        kills = 1 if db_alias == "firestore" else 2  # each may have to wait a minute there
        site.kill_often(kills, chance)
        progress = api.get_progress(key, db_alias)
        assert (progress.status, progress.processed) == ("applied", 240), site.tell()
        visits = get_visits(db_alias)
        assert 0 not in visits, "a row was lost"
        assert sum((number - 1) * rows for number, rows in visits.items()) <= kills * BATCH_SIZE

    def test_a_kill_of_a_simple_migration_begins_it_again(self, db_alias, popen_manage, tmp_path, chance):
        make_rows(db_alias, 150)
        site = CloudSite(popen_manage, tmp_path, SIMPLE, db_alias)
        process = site.start()
        deadline = time.monotonic() + 60
        while not Row.objects.using(db_alias).filter(visits=1).exists():
            assert time.monotonic() < deadline and process.poll() is None, site.tell()
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert api.get_progress(SIMPLE, db_alias).status == "running"
        assert site.run() == 0, site.tell()
        assert api.get_progress(SIMPLE, db_alias).status == "applied"
        visits = set(get_visits(db_alias))
        assert 0 not in visits
        if db_alias == "datastore":  # on Firestore it meets the locks of the dead, and is called once more each time
            assert visits <= {1, 2}


class SetFlag(Visit):
    update_fields = ["visits", "flag"]
    shard_count = 4

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(flag=False)

    def operation(self, row, db_alias):
        super().operation(row, db_alias)
        row.flag = True


class SaveFlag(SetFlag):
    update_fields = ()

    def operation(self, row, db_alias):
        super().operation(row, db_alias)
        row.save(using=db_alias, force_update=True)


class UpdateFlag(BatchMigration):
    shard_count = 4

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(flag=False)

    def operation(self, queryset, db_alias):
        queryset.update(flag=True, visits=F("visits") + 1)


class OneIsBad(Visit):
    batch_size = 30
    is_mended = False

    def operation(self, row, db_alias):
        if row.name == "row 77" and not self.is_mended:
            raise ValueError("cannot be worked")
        super().operation(row, db_alias)


class TestPredecessor:
    @pytest.mark.parametrize("definition", [SetFlag, UpdateFlag, SaveFlag])
    def test_an_operation_that_changes_its_own_filter_leaves_none(self, db_alias, definition):
        make_rows(db_alias, 160)
        progress = run(make(definition, batch_size=15), db_alias)
        assert (progress.status, progress.processed) == ("applied", 160)
        assert not Row.objects.using(db_alias).filter(flag=False).exists()
        assert get_visits(db_alias) == {1: 160}

    def test_one_bad_row_fails_the_run_and_a_retry_goes_on_from_there(self, db_alias):
        make_rows(db_alias, 150)
        migration = make(OneIsBad)
        progress = run(migration, db_alias)
        assert (progress.status, progress.reason, progress.failed) == ("failed", "operation_error", 1)
        assert not api.migration_is_applied(migration.key, db_alias)
        change(migration, is_mended=True)
        executor.retry(migration, db_alias, AUTHOR, enqueue=False)
        progress = work(migration, db_alias)
        assert (progress.status, progress.processed, progress.failed) == ("applied", 150, 0)
        assert get_visits(db_alias) == {1: 150}

    def test_a_dead_workers_shard_goes_on_from_its_cursor(self, db_alias, settings):
        settings.MASSMIGRATION_LEASE_SECONDS = 0.3
        make_rows(db_alias, 60)
        migration = make(Visit, batch_size=20)
        start(migration, db_alias)
        claim_range(migration, db_alias, "dead")
        settings.MASSMIGRATION_LEASE_SECONDS = 60
        progress = work(migration, db_alias)
        assert (progress.status, progress.processed) == ("applied", 60)
        assert get_visits(db_alias) == {1: 60}

    def test_a_shard_longer_than_a_slice_ends(self, db_alias, queue, settings):
        settings.MASSMIGRATION_SLICE_SECONDS = 0.001
        make_rows(db_alias, 120)
        api.start_migration(MAPPER, db_alias)
        while queue.waiting:
            queue.deliver(queue.waiting.pop(0))
        progress = api.get_progress(MAPPER, db_alias)
        assert (progress.status, progress.processed) == ("applied", 120)
        assert len([task for task in queue.delivered if task[0].endswith("run_shard")]) > 8
        assert get_visits(db_alias) == {1: 120}

    @pytest.mark.parametrize("key", [MAPPER, SAVES, CUSTOM])
    def test_tasks_that_come_twice_late_and_shuffled_do_nothing_twice(self, db_alias, queue, settings, chance, key):
        settings.MASSMIGRATION_SLICE_SECONDS = 0.02
        make_rows(db_alias, 100)
        api.start_migration(key, db_alias)
        queue.deliver_badly(chance)
        progress = api.get_progress(key, db_alias)
        assert (progress.status, progress.processed, progress.shards) == ("applied", 100, 4)
        assert get_visits(db_alias) == {1: 100}
        for task in list(queue.delivered)[::5]:
            queue.deliver(task)
        assert api.get_progress(key, db_alias) == progress
        assert get_visits(db_alias) == {1: 100}

    def test_a_task_of_an_earlier_attempt_does_nothing(self, db_alias, queue, chance):
        make_rows(db_alias, 60)
        api.start_migration(SAVES, db_alias)
        queue.deliver_badly(chance)
        old = list(queue.delivered)
        api.restart_migration(SAVES, db_alias)
        for task in old:
            queue.deliver(task)
        assert get_visits(db_alias) == {1: 60}
        queue.deliver_badly(chance)
        assert api.get_progress(SAVES, db_alias).status == "applied"
        assert get_visits(db_alias) == {2: 60}

    @pytest.mark.parametrize("key", [MAPPER, SAVES])
    def test_tasks_that_come_twice_at_the_same_moment_do_nothing_twice(self, db_alias, queue, chance, key):
        make_rows(db_alias, 100)
        api.start_migration(key, db_alias)
        while queue.waiting:
            waiting = queue.waiting * 2
            queue.waiting.clear()
            chance.shuffle(waiting)
            for number in range(0, len(waiting), 4):
                in_threads(*(lambda task=task: queue.deliver(task) for task in waiting[number : number + 4]))
        progress = api.get_progress(key, db_alias)
        assert (progress.status, progress.processed, progress.shards) == ("applied", 100, 4)
        assert get_visits(db_alias) == {1: 100}

    def test_planning_twice_at_the_same_moment_makes_the_shards_once(self, db_alias, queue, chance):
        make_rows(db_alias, 80)
        record = api.start_migration(MAPPER, db_alias)
        assert record.attempt_uuid is not None
        plan = MigrationShard.make_id(record.attempt_uuid, MigrationShard.PLAN)
        in_threads(*[lambda: tasks.run_shard(plan, db_alias)] * 4)
        shards = recorder.get_shards(record.attempt_uuid, db_alias)
        assert [shard.number for shard in shards if shard.kind == MigrationShard.RANGE] == [0, 1, 2, 3]
        queue.deliver_badly(chance)
        assert api.get_progress(MAPPER, db_alias).processed == 80
        assert get_visits(db_alias) == {1: 80}

    def test_five_workers_at_once_always_end(self, db_alias):
        store_rows(Number, [number for number in range(-40, 41) if number], db_alias)
        options = {"model": Number, "shard_count": 8, "batch_size": 4}
        for repetition in range(1, 3):
            migration = make(Visit, **options)
            attempt_uuid = start(migration, db_alias)
            in_threads(*[lambda uuid=attempt_uuid: worker.work(make(Visit, **options), db_alias, uuid)] * 5)
            progress = get_progress(migration.key, db_alias, migration)
            assert (progress.status, progress.processed) == ("applied", 80), f"repetition {repetition}"
            assert get_visits(db_alias, Number) == {repetition: 80}, "a row was visited twice or never"
            executor.reset(migration.key, db_alias, AUTHOR)

    def test_reset_and_run_again_at_once_does_all_rows(self, db_alias, settings):
        settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 60
        make_rows(db_alias, 60)
        migration = make(Visit, batch_size=None)
        for repetition in range(1, 4):
            progress = run(migration, db_alias)
            assert (progress.status, progress.processed) == ("applied", 60)
            assert get_visits(db_alias) == {repetition: 60}
            executor.reset(migration.key, db_alias, AUTHOR)

    def test_a_queue_that_is_down_fails_the_launch_and_a_retry_works(self, db_alias, settings, chance):
        make_rows(db_alias, 40)
        settings.MASSMIGRATION_BACKEND = "tests.faults.queues.UnreachableBackend"
        with pytest.raises(BackendUnreachable, match="broker refused"):
            api.start_migration(MAPPER, db_alias)
        progress = api.get_progress(MAPPER, db_alias)
        assert (progress.status, progress.reason) == ("failed", "backend_unreachable")
        settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
        ListBackend.empty()
        api.retry_migration(MAPPER, db_alias)
        ListBackend.deliver_badly(chance)
        progress = api.get_progress(MAPPER, db_alias)
        assert (progress.status, progress.reason, progress.processed) == ("applied", None, 40)
        assert get_visits(db_alias) == {1: 40}

    def test_a_worker_that_stops_between_batches_leaves_a_shard_that_others_take_at_once(self, db_alias):
        make_rows(db_alias, 60)
        migration = make(Save, batch_size=10)
        attempt_uuid = start(migration, db_alias)
        stop = threading.Event()

        def note():
            if Row.objects.using(db_alias).filter(visits=1).exists():
                stop.set()

        worker.work(migration, db_alias, attempt_uuid, should_stop=stop.is_set, on_progress=note)
        assert 0 < get_visits(db_alias).get(1, 0) < 60
        assert work(migration, db_alias).processed == 60
        assert get_visits(db_alias) == {1: 60}
