"""Runs on a queue go on although tasks, workers, files and the queue itself get lost."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from django.db import OperationalError
from django.db.models import F
from django.utils import timezone

from massmigration import api, executor, recorder, states, tasks
from massmigration.backends.base import RUN_SHARD, WATCH, get_backend
from massmigration.discovery.loader import clear_loader
from massmigration.engine.leases import release
from massmigration.exceptions import BackendUnreachable, ConfigurationError
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from massmigration.watch import enqueue_watch
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR
from tests.faults.queues import ListBackend
from tests.testapp.models import City
from tests.throwaway import throwaway_apps

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

KEY = "watched:0001_visits"
FILE = """\
from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    update_fields = ["visits"]
    shard_count = 4
    {more}

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1
"""


@pytest.fixture
def throwaway(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as apps:
        yield apps


@pytest.fixture
def queue(settings):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_WATCH_SECONDS = 60
    ListBackend.empty()
    yield ListBackend
    ListBackend.empty()


@pytest.fixture
def begin(queue, throwaway, db_alias):
    """Start a run of 40 rows in 4 shards, plan it, and return its attempt; ``more`` are lines of the class."""

    def run(more=""):
        throwaway.make_app("watched", {"0001_visits.py": FILE.format(more=more)})
        City.objects.using(db_alias).bulk_create([City(name=f"city {number}") for number in range(40)])
        record = api.start_migration(KEY, db_alias)
        deliver(queue, RUN_SHARD, 1)
        return record.attempt_uuid

    return run


def deliver(queue, task, count):
    """Deliver the first ``count`` tasks of this name."""
    for _ in range(count):
        found = next(one for one in queue.waiting if one[0] == task)
        queue.waiting.remove(found)
        queue.deliver(found)


def get_waiting(queue, task):
    return [json.loads(arguments) for name, arguments in queue.waiting if name == task]


def get_places(db_alias, shards=4):
    """Return how many of the shards may be worked at once: SQLite has one writer."""
    return 1 if db_alias == "default" else shards


def lose_tasks(queue):
    queue.waiting[:] = [one for one in queue.waiting if one[0] != RUN_SHARD]


def turn_clock(attempt_uuid, db_alias, seconds):
    """Make all that was noted of the attempt older, and the tasks that wait."""
    ago = timedelta(seconds=seconds)
    ListBackend.waiting[:] = [(task, _make_older(arguments, ago)) for task, arguments in ListBackend.waiting]
    for attempt in MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid):
        recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=attempt.watch_due_at - ago)
    for shard in MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid):
        if shard.lease_expires_at:
            shard.lease_expires_at -= ago
        if shard.last_progress_at:
            shard.last_progress_at -= ago
        shard.enqueued_at -= ago
        shard.save(using=db_alias)


def _make_older(arguments, ago):
    values = json.loads(arguments)
    if "due_at" in values:
        values["due_at"] = (datetime.fromisoformat(values["due_at"]) - ago).isoformat()
    return json.dumps(values)


def get_ranges(attempt_uuid, db_alias):
    return [shard for shard in recorder.get_shards(attempt_uuid, db_alias) if shard.kind == MigrationShard.RANGE]


def finish(queue, attempt_uuid, db_alias, visits=1):
    """Deliver all that waits, and let the watch find the rest, until the run has ended with so many visits each."""
    for _ in range(20):
        while get_waiting(queue, RUN_SHARD):
            deliver(queue, RUN_SHARD, 1)
        if api.get_progress(KEY, db_alias).status not in states.ACTIVE:
            break
        turn_clock(attempt_uuid, db_alias, 100)
        deliver(queue, WATCH, 1)
    assert api.get_progress(KEY, db_alias).status == states.APPLIED
    assert visits is None or set(City.objects.using(db_alias).values_list("visits", flat=True)) == {visits}


def test_tasks_that_the_queue_lost_are_enqueued_again(begin, queue, db_alias):
    attempt_uuid = begin()
    assert len(get_waiting(queue, RUN_SHARD)) == get_places(db_alias)
    lose_tasks(queue)
    deliver(queue, WATCH, 1)
    assert not get_waiting(queue, RUN_SHARD), "it came too early, as a task that is delivered twice does"
    turn_clock(attempt_uuid, db_alias, 61)
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    found = [arguments["shard_id"] for arguments in get_waiting(queue, RUN_SHARD)]
    assert found == [shard.pk for shard in get_ranges(attempt_uuid, db_alias)][: get_places(db_alias)]
    assert len(get_waiting(queue, WATCH)) == 1, "and it comes back itself"
    finish(queue, attempt_uuid, db_alias)


def test_tasks_that_were_enqueued_before_the_clock_was_set_back_are_enqueued_again(begin, queue, db_alias):
    attempt_uuid = begin()
    queue.waiting.clear()
    turn_clock(attempt_uuid, db_alias, -3600)
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert len(get_waiting(queue, RUN_SHARD)) == get_places(db_alias)
    assert len(get_waiting(queue, WATCH)) == 1
    finish(queue, attempt_uuid, db_alias)


def test_a_watch_does_not_enqueue_what_was_enqueued_a_moment_ago(begin, queue, db_alias):
    attempt_uuid = begin()
    lose_tasks(queue)
    recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=timezone.now())
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert not get_waiting(queue, RUN_SHARD), "they may still wait in the queue"
    finish(queue, attempt_uuid, db_alias)


def test_a_shard_whose_worker_died_is_enqueued_again_when_its_lease_ends(begin, queue, db_alias):
    attempt_uuid = begin()
    dead = get_ranges(attempt_uuid, db_alias)[0]
    assert recorder.ShardRecorder(db_alias).claim(dead, "dead worker", 30, None)
    queue.waiting[:] = [one for one in queue.waiting if dead.pk not in one[1]]
    recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=timezone.now())
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert dead.pk not in str(queue.waiting), "it may live"
    turn_clock(attempt_uuid, db_alias, 61)
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert [arguments["shard_id"] for arguments in get_waiting(queue, RUN_SHARD)].count(dead.pk) == 1
    finish(queue, attempt_uuid, db_alias)


def add_waiting(attempt_uuid, db_alias, count, seconds):
    """Add shards that were enqueued so many seconds ago, and whose tasks wait in the queue."""
    at = timezone.now() - timedelta(seconds=seconds)
    rows = MigrationShard.objects.using(db_alias)
    rows.filter(attempt_uuid=attempt_uuid).update(enqueued_at=at)
    rows.bulk_create(
        MigrationShard(
            id=MigrationShard.make_id(attempt_uuid, "range", 1, number),
            attempt_uuid=attempt_uuid,
            key=KEY,
            kind="range",
            number=number,
            lower=str(-number),
            upper=str(-number + 1),
            enqueued_at=at,
        )
        for number in range(1000, 1000 + count)
    )


def set_shards(attempt_uuid, db_alias, numbers, **fields):
    rows = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid, number__in=list(numbers))
    assert rows.update(**fields) == len(numbers)


def keep_working(attempt_uuid, db_alias, workers):
    """Let so many shards be worked on at this moment."""
    now = timezone.now()
    fields = {"status": "running", "lease_expires_at": now + timedelta(seconds=30), "last_progress_at": now}
    set_shards(attempt_uuid, db_alias, range(1000, 1000 + workers), **fields)


def look(attempt_uuid, db_alias):
    """Call the watch as if its time had come."""
    recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=timezone.now())
    tasks.watch(KEY, db_alias, str(attempt_uuid))


def get_warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("hours", [1, 20])
def test_a_thousand_shards_that_wait_behind_sixteen_workers_are_not_lost(begin, queue, db_alias, caplog, hours):
    attempt_uuid, workers = begin(), get_places(db_alias, 16)
    lose_tasks(queue)
    add_waiting(attempt_uuid, db_alias, 1000, hours * 3600)
    for _ in range(3):
        keep_working(attempt_uuid, db_alias, workers)
        look(attempt_uuid, db_alias)
    assert get_waiting(queue, RUN_SHARD) == []
    assert get_warnings(caplog) == []


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
@pytest.mark.parametrize("ended", ["running", "done"])
def test_a_shard_that_many_others_overtake_has_lost_its_task(begin, queue, db_alias, caplog, ended):
    attempt_uuid = begin()
    lose_tasks(queue)
    add_waiting(attempt_uuid, db_alias, 1000, 3600)
    keep_working(attempt_uuid, db_alias, 16)
    later = timezone.now() - timedelta(seconds=3600 - 590)
    set_shards(attempt_uuid, db_alias, [1015], status=ended, enqueued_at=later)
    look(attempt_uuid, db_alias)
    assert get_waiting(queue, RUN_SHARD) == [], "a queue keeps no strict order"
    set_shards(attempt_uuid, db_alias, [1015], enqueued_at=later + timedelta(seconds=20))
    live = 16 if ended == "running" else 15
    look(attempt_uuid, db_alias)
    found = [arguments["shard_id"] for arguments in get_waiting(queue, RUN_SHARD)]
    assert len(found) == len(set(found)) == len(get_warnings(caplog)) == live, "as many at once as can be worked on"
    look(attempt_uuid, db_alias)
    found = [arguments["shard_id"] for arguments in get_waiting(queue, RUN_SHARD)]
    assert len(found) == len(set(found)) == 2 * live, "and then the next ones"


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
def test_a_shard_that_has_waited_for_a_day_is_enqueued_again_whatever_others_do(begin, queue, db_alias):
    attempt_uuid = begin()
    lose_tasks(queue)
    add_waiting(attempt_uuid, db_alias, 20, 25 * 3600)
    keep_working(attempt_uuid, db_alias, 2)
    look(attempt_uuid, db_alias)
    assert len(get_waiting(queue, RUN_SHARD)) == 2


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
def test_a_shard_whose_worker_died_is_enqueued_once_although_its_task_waits_long(begin, queue, db_alias, caplog):
    attempt_uuid = begin("max_workers = 3")
    lose_tasks(queue)
    add_waiting(attempt_uuid, db_alias, 100, 3600)
    gone = timezone.now() - timedelta(seconds=200)
    set_shards(attempt_uuid, db_alias, [1050], status="running", lease_expires_at=gone)
    for _ in range(5):
        keep_working(attempt_uuid, db_alias, 2)
        look(attempt_uuid, db_alias)
    (arguments,) = get_waiting(queue, RUN_SHARD)
    assert arguments["shard_id"] == MigrationShard.make_id(attempt_uuid, "range", 1, 1050)
    assert len(get_warnings(caplog)) == 1


def test_tasks_that_wait_for_hours_behind_another_migration_do_not_multiply(begin, queue, db_alias):
    attempt_uuid, step = begin(), timedelta(seconds=180)
    lose_tasks(queue)
    for _ in range(60):
        MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).update(
            enqueued_at=F("enqueued_at") - step, last_progress_at=F("last_progress_at") - step
        )
        MigrationRecord.objects.using(db_alias).update(moved_at=F("moved_at") - step)
        look(attempt_uuid, db_alias)
    found = [arguments["shard_id"] for arguments in get_waiting(queue, RUN_SHARD)]
    assert 4 <= found.count(found[0]) <= 12, "each time after twice as long, in three hours"


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
def test_on_a_queue_that_delivers_one_task_at_a_time_tasks_do_not_multiply(begin, queue, db_alias):
    attempt_uuid = begin()
    shard = get_ranges(attempt_uuid, db_alias)[0]
    turn_clock(attempt_uuid, db_alias, 300)
    assert recorder.ShardRecorder(db_alias).claim(shard, "a worker", 30, None)
    recorder.ShardRecorder(db_alias).advance(shard, last_progress_at=timezone.now())
    release(shard, db_alias)
    waiting = get_waiting(queue, RUN_SHARD)
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert get_waiting(queue, RUN_SHARD) == waiting, "the others wait for their turn"
    turn_clock(attempt_uuid, db_alias, 61)
    tasks.watch(KEY, db_alias, str(attempt_uuid))
    assert len(get_waiting(queue, RUN_SHARD)) == len(waiting) + 4, "but nothing has happened for a while"
    finish(queue, attempt_uuid, db_alias)


def test_not_more_are_enqueued_than_may_work(begin, queue, db_alias):
    attempt_uuid = begin("max_workers = 2")
    expected = get_places(db_alias, 2)
    assert len(get_waiting(queue, RUN_SHARD)) == expected
    lose_tasks(queue)
    turn_clock(attempt_uuid, db_alias, 100)
    deliver(queue, WATCH, 1)
    assert len(get_waiting(queue, RUN_SHARD)) == expected
    finish(queue, attempt_uuid, db_alias)


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_the_watch_of_a_stopped_run_ends_and_resume_begins_a_new_one(begin, queue, db_alias, action):
    attempt_uuid = begin()
    getattr(executor, action)(KEY, db_alias, AUTHOR)
    turn_clock(attempt_uuid, db_alias, 100)
    while queue.waiting:
        queue.deliver(queue.waiting.pop())
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {0}
    record = api.resume_migration(KEY, db_alias) if action == "pause" else api.start_migration(KEY, db_alias)
    assert len(get_waiting(queue, WATCH)) == 1
    finish(queue, record.attempt_uuid, db_alias)


def test_watches_that_are_doubled_become_one_again(begin, queue, db_alias):
    attempt_uuid = begin()
    queue.waiting += [one for one in queue.waiting if one[0] == WATCH] * 3
    turn_clock(attempt_uuid, db_alias, 61)
    deliver(queue, WATCH, 4)
    assert len(get_waiting(queue, WATCH)) == 1


def test_a_slice_begins_the_watch_anew_that_a_purge_took(begin, queue, db_alias):
    attempt_uuid = begin()
    queue.waiting[:] = [one for one in queue.waiting if one[0] != WATCH]
    deliver(queue, RUN_SHARD, 1)
    assert not get_waiting(queue, WATCH), "it is not overdue yet"
    turn_clock(attempt_uuid, db_alias, 150)
    deliver(queue, RUN_SHARD, 1)
    assert len(get_waiting(queue, WATCH)) == 1
    lose_tasks(queue)
    finish(queue, attempt_uuid, db_alias)


def test_a_purge_of_everything_is_mended_by_recover(begin, queue, db_alias):
    attempt_uuid = begin()
    queue.waiting.clear()
    assert not api.get_progress(KEY, db_alias).stalled, "tasks may wait in the queue"
    turn_clock(attempt_uuid, db_alias, 200)
    record = recorder.get_record(KEY, db_alias)
    type(record).objects.using(db_alias).update(moved_at=record.moved_at - timedelta(seconds=200))
    for shard in recorder.get_shards(attempt_uuid, db_alias):
        if shard.finished_at:
            type(shard).objects.using(db_alias).filter(pk=shard.pk).update(
                finished_at=shard.finished_at - timedelta(seconds=200)
            )
    assert api.get_progress(KEY, db_alias).stalled
    executor.recover(api.get_migration(KEY), db_alias, AUTHOR)
    finish(queue, attempt_uuid, db_alias)


def test_a_deploy_without_the_file_and_one_with_it(begin, queue, db_alias, throwaway, caplog):
    attempt_uuid = begin()
    file = throwaway.root / "watched/massmigrations/0001_visits.py"
    file.unlink()
    clear_loader()
    for _ in range(2):
        turn_clock(attempt_uuid, db_alias, 100)
        deliver(queue, WATCH, 1)
        deliver(queue, RUN_SHARD, len(get_waiting(queue, RUN_SHARD)))
    assert api.get_progress(KEY, db_alias).status == states.ORPHANED
    assert "watched:0001_visits" in caplog.text
    assert len(get_waiting(queue, WATCH)) == 1
    file.write_text(FILE.format(more=""))
    clear_loader()
    finish(queue, attempt_uuid, db_alias)


@pytest.mark.parametrize(("minutes", "seconds"), [(0, 60), (10, 600), (50, 3000), (300, 3600), (30_000, 3600)])
def test_the_watch_of_a_missing_file_comes_more_and_more_seldom_and_hourly_at_last(
    begin, queue, db_alias, throwaway, minutes, seconds
):
    attempt_uuid, ago = begin(), timezone.now() - timedelta(minutes=minutes)
    (throwaway.root / "watched/massmigrations/0001_visits.py").unlink()
    clear_loader()
    MigrationRecord.objects.using(db_alias).update(moved_at=ago)
    MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid).update(last_progress_at=ago)
    queue.waiting.clear()
    look(attempt_uuid, db_alias)
    (arguments,) = get_waiting(queue, WATCH)
    due_in = datetime.fromisoformat(arguments["due_at"]) - timezone.now()
    assert abs(due_in.total_seconds() - seconds) < 30
    look(attempt_uuid, db_alias)
    assert len(get_waiting(queue, WATCH)) == 2, "and it goes on"


def test_the_watch_of_a_missing_file_stays_on_the_backend_that_the_run_was_started_on(
    begin, queue, db_alias, throwaway, settings
):
    attempt_uuid = begin('backend = "tests.faults.queues.ListBackend"')
    settings.MASSMIGRATION_BACKEND = "massmigration.backends.local.LocalBackend"
    (throwaway.root / "watched/massmigrations/0001_visits.py").unlink()
    clear_loader()
    turn_clock(attempt_uuid, db_alias, 100)
    deliver(queue, WATCH, 1)
    assert len(get_waiting(queue, WATCH)) == 1


@pytest.fixture
def choosy_queue(queue, monkeypatch):
    """Refuse a name for ever, as Cloud Tasks does for hours."""
    names, enqueue = set(), queue.enqueue

    def refuse(self, *args, name="", **kwargs):
        if name not in names:
            names.add(name)
            enqueue(self, *args, name=name, **kwargs)

    monkeypatch.setattr(queue, "enqueue", refuse)
    return queue


@needs_postgres
@pytest.mark.parametrize("db_alias", ["postgres"])
def test_a_shard_that_was_turned_away_gets_the_next_free_place(begin, choosy_queue, db_alias):
    attempt_uuid = begin("max_workers = 2")
    deliver(choosy_queue, RUN_SHARD, 1)
    *_, one, other = get_ranges(attempt_uuid, db_alias)
    for shard in (one, other):  # as by tasks that the watch had sent
        assert recorder.ShardRecorder(db_alias).claim(shard, "quick worker", 30, None)
    deliver(choosy_queue, RUN_SHARD, len(get_waiting(choosy_queue, RUN_SHARD)))
    turned_away = [shard.pk for shard in get_ranges(attempt_uuid, db_alias) if shard.status == MigrationShard.READY]
    assert turned_away
    for shard in (one, other):
        release(shard, db_alias)
        tasks.run_shard(shard.pk, db_alias)
    assert set(turned_away) <= {arguments["shard_id"] for arguments in get_waiting(choosy_queue, RUN_SHARD)}
    finish(choosy_queue, attempt_uuid, db_alias)


def test_a_shard_that_rests_keeps_no_other_from_its_place(begin, queue, db_alias):
    attempt_uuid = begin("max_workers = 1")
    first, second, *_ = get_ranges(attempt_uuid, db_alias)
    assert recorder.ShardRecorder(db_alias).claim(first, "tired worker", 30, None)
    release(first, db_alias, rest_seconds=3600)
    lose_tasks(queue)
    tasks.run_shard(second.pk, db_alias)
    (arguments,) = get_waiting(queue, RUN_SHARD)
    assert arguments["shard_id"] not in (first.pk, second.pk)


def test_a_backend_that_is_gone_leaves_no_lease(begin, queue, db_alias, settings):
    attempt_uuid = begin()
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.NoSuchBackend"
    shard = get_ranges(attempt_uuid, db_alias)[0]
    with pytest.raises(ConfigurationError):
        tasks.run_shard(shard.pk, db_alias)
    assert recorder.get_shard(shard.pk, db_alias).status == MigrationShard.READY


def test_a_queue_that_is_down_for_the_watch(begin, queue, db_alias, monkeypatch):
    attempt_uuid = begin()
    turn_clock(attempt_uuid, db_alias, 100)
    lose_tasks(queue)

    def refuse(*args, **kwargs):
        raise ConnectionError("down")

    with monkeypatch.context() as patch:
        patch.setattr(ListBackend, "enqueue", refuse)
        with pytest.raises(ConnectionError):  # so that the queue delivers the task again
            tasks.watch(KEY, db_alias, str(attempt_uuid))
    deliver(queue, WATCH, 1)
    finish(queue, attempt_uuid, db_alias)


BREAKS = """\
from django.db import OperationalError
from django.db.models import F
from massmigration.models import MigrationShard
from massmigration import MapperMigration
from tests.testapp.models import City


class ServerSaysGoodBye(Exception):
    sqlstate = "57P01"


class Migration(MapperMigration):
    def get_queryset(self, db_alias):
        if MigrationShard.objects.using(db_alias).filter(kind="range").exists():
            raise OperationalError("the server is shutting down") from ServerSaysGoodBye()
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        pass
"""


def test_a_shard_whose_database_went_down_does_not_find_its_own_lease(queue, throwaway, db_alias):
    throwaway.make_app("watched", {"0001_visits.py": BREAKS})
    City.objects.using(db_alias).create(name="one")
    record = api.start_migration(KEY, db_alias)
    deliver(queue, RUN_SHARD, 1)
    for _ in range(2):  # the queue delivers a task again that ended with an error
        with pytest.raises(OperationalError):
            tasks.run_shard(get_ranges(record.attempt_uuid, db_alias)[0].pk, db_alias)
    (shard,) = get_ranges(record.attempt_uuid, db_alias)
    assert shard.status == MigrationShard.READY
    assert shard.fence == 2


def test_a_task_that_could_not_begin_the_watch_does_not_find_its_own_lease(begin, queue, db_alias, monkeypatch):
    attempt_uuid = begin()
    shard = get_ranges(attempt_uuid, db_alias)[0]
    recorder.update_attempt(attempt_uuid, db_alias, watch_due_at=None)

    def refuse(*args, **kwargs):
        raise ConnectionError("down")

    with monkeypatch.context() as patch:
        patch.setattr(ListBackend, "enqueue", refuse)
        with pytest.raises(ConnectionError):
            tasks.run_shard(shard.pk, db_alias)
    tasks.run_shard(shard.pk, db_alias)
    assert recorder.get_shard(shard.pk, db_alias).status == MigrationShard.DONE


def test_a_recovery_while_the_queue_is_down_leaves_the_run_to_the_next_one(begin, queue, db_alias, monkeypatch):
    attempt_uuid = begin()
    queue.waiting.clear()

    def refuse(*args, **kwargs):
        raise ConnectionError("down")

    with monkeypatch.context() as patch:
        patch.setattr(ListBackend, "enqueue", refuse)
        with pytest.raises(BackendUnreachable, match="Recover it when the problem is fixed"):
            executor.recover(api.get_migration(KEY), db_alias, AUTHOR)
    assert api.get_progress(KEY, db_alias).status == states.RUNNING
    executor.recover(api.get_migration(KEY), db_alias, AUTHOR)
    finish(queue, attempt_uuid, db_alias)


def test_a_run_takes_a_task_for_each_visit_and_no_more(queue, throwaway, settings):
    db_alias = "default"
    throwaway.make_app(
        "watched",
        {
            "0001_visits.py": (
                "from massmigration import CustomMigration\n\n\n"
                "class Migration(CustomMigration):\n"
                "    def get_shards(self, db_alias):\n"
                "        return list(range(50))\n\n"
                "    def get_items(self, shard, cursor, db_alias):\n"
                "        if cursor is None:\n"
                "            yield 1, shard\n\n"
                "    def operation(self, item, db_alias):\n"
                "        pass\n"
            )
        },
    )
    api.start_migration(KEY, db_alias)
    while get_waiting(queue, RUN_SHARD):
        deliver(queue, RUN_SHARD, 1)
    assert api.get_progress(KEY, db_alias).status == states.APPLIED
    visits = [name for name, _ in queue.delivered if name == RUN_SHARD]
    assert len(visits) == 52, "one to plan, one for each shard, and one to finish"


def test_of_watches_that_were_enqueued_at_the_same_moment_one_goes_on(begin, queue, db_alias):
    attempt_uuid = begin()
    queue.waiting.clear()
    turn_clock(attempt_uuid, db_alias, 61)
    (attempt,) = MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid)
    backend = get_backend(api.get_migration(KEY))
    assert [enqueue_watch(backend, KEY, db_alias, attempt) for _ in range(3)] == [True, False, False]
    lose_tasks(queue)
    turn_clock(attempt_uuid, db_alias, 61)
    queue.waiting *= 2  # and each is delivered twice
    deliver(queue, WATCH, 6)
    assert len(get_waiting(queue, WATCH)) == 1
    finish(queue, attempt_uuid, db_alias)


@pytest.mark.parametrize("step", ["before it", "after it"])
def test_a_watch_that_is_killed_while_it_enqueues_the_next_one_does_so_when_it_is_delivered_again(
    begin, queue, db_alias, monkeypatch, step
):
    attempt_uuid = begin()
    lose_tasks(queue)
    turn_clock(attempt_uuid, db_alias, 61)
    (task,) = queue.waiting
    enqueue = queue.enqueue

    def die(self, *args, **kwargs):
        if step == "after it":
            enqueue(self, *args, **kwargs)
        raise SystemExit

    queue.waiting.clear()
    with monkeypatch.context() as patch:
        patch.setattr(queue, "enqueue", die)
        with pytest.raises(SystemExit):
            queue.deliver(task)
    queue.deliver(task)
    lose_tasks(queue)
    turn_clock(attempt_uuid, db_alias, 61)
    deliver(queue, WATCH, len(get_waiting(queue, WATCH)))
    assert len(get_waiting(queue, WATCH)) == 1
    finish(queue, attempt_uuid, db_alias)


def test_a_queue_that_knows_no_delays_is_not_called_again_and_again(begin, queue, db_alias, monkeypatch):
    attempt_uuid = begin()
    lose_tasks(queue)
    turn_clock(attempt_uuid, db_alias, 61)
    (waiting,) = queue.waiting
    queue.waiting.clear()
    enqueue = queue.enqueue

    def call(self, task, arguments, **options):
        if task == WATCH:
            tasks.watch(**arguments)
        enqueue(self, task, arguments, **options)

    monkeypatch.setattr(queue, "enqueue", call)
    queue.deliver(waiting)
    assert len(get_waiting(queue, WATCH)) == 1
    finish(queue, attempt_uuid, db_alias)
