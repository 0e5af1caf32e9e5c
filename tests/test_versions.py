"""A deploy during a run: old code does not go on, new code does, and two versions do not fight."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from massmigration import api, executor, recorder, states, tasks, worker
from massmigration.backends.base import RUN_SHARD, WATCH
from massmigration.discovery.loader import get_loader
from massmigration.engine import leases, versions
from massmigration.engine.versions import WAITS
from massmigration.exceptions import VersionReplaced
from massmigration.models import MigrationAttempt, MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR
from tests.faults.queues import ListBackend
from tests.test_watch import FILE, KEY, deliver, finish, get_ranges, get_waiting, turn_clock
from tests.testapp.models import City
from tests.throwaway import reload_loader, throwaway_apps

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

ROWS = 40
OLD = FILE.format(more="version = 1")
NEW = OLD.replace("visits += 1", "visits += 10")


@pytest.fixture
def deploy(tmp_path, settings):
    """Have this process import a version of the file, as one of that version would have."""
    with throwaway_apps(tmp_path, settings) as apps:
        apps.make_app("watched", {"0001_visits.py": OLD})

        def install(text):
            apps.write("watched/massmigrations/0001_visits.py", text)
            reload_loader()

        yield install


@pytest.fixture
def queue(settings):
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_WATCH_SECONDS = 60
    ListBackend.empty()
    yield ListBackend
    ListBackend.empty()


def begin(deploy, db_alias, queue=None):
    """Start a run of the old version, and plan it if there is a queue; return its attempt."""
    deploy(OLD)
    City.objects.using(db_alias).bulk_create([City(name=f"city {number}") for number in range(ROWS)])
    record = api.start_migration(KEY, db_alias, enqueue=queue is not None)
    if queue is not None:
        deliver(queue, RUN_SHARD, 1)
    return record.attempt_uuid


def count_visits(db_alias, visits):
    return City.objects.using(db_alias).filter(visits=visits).count()


def get_hash(attempt_uuid, db_alias):
    return MigrationAttempt.objects.using(db_alias).get(pk=attempt_uuid).source_hash


def get_actions(db_alias):
    return [event.action for event in api.get_events(KEY, db_alias)]


def deliver_all(queue):
    """Deliver the tasks that wait now, but not those that they enqueue."""
    deliver(queue, RUN_SHARD, len(get_waiting(queue, RUN_SHARD)))


def watch(queue, attempt_uuid, db_alias, seconds=61):
    turn_clock(attempt_uuid, db_alias, seconds)
    deliver(queue, WATCH, 1)


def test_after_pause_deploy_resume_a_task_of_the_old_version_changes_nothing(deploy, queue, db_alias, caplog):
    attempt_uuid = begin(deploy, db_alias, queue)
    executor.pause(KEY, db_alias, AUTHOR)
    deploy(NEW)
    api.resume_migration(KEY, db_alias)
    deploy(OLD)
    deliver_all(queue)
    assert count_visits(db_alias, 0) == ROWS
    assert not get_waiting(queue, RUN_SHARD), "were it enqueued from here, it would come back here"
    assert "another version of the file" in caplog.text
    assert api.get_progress(KEY, db_alias).waiting_for == WAITS
    deploy(NEW)
    watch(queue, attempt_uuid, db_alias)
    finish(queue, attempt_uuid, db_alias, visits=10)
    assert get_actions(db_alias).count("change_file") == 1
    assert "2 versions" in api.get_progress(KEY, db_alias).warning


def test_a_deploy_in_mid_run_goes_on_with_the_new_code_after_the_next_watch(deploy, queue, db_alias):
    attempt_uuid = begin(deploy, db_alias, queue)
    deliver(queue, RUN_SHARD, 1)
    done = count_visits(db_alias, 1)
    assert 0 < done < ROWS
    deploy(NEW)
    deliver_all(queue)
    assert not get_waiting(queue, RUN_SHARD), "no hand-back enqueues anything"
    assert count_visits(db_alias, 0) == ROWS - done
    assert len(get_waiting(queue, WATCH)) == 1
    watch(queue, attempt_uuid, db_alias)
    assert get_waiting(queue, RUN_SHARD)
    deploy(OLD)
    deliver_all(queue)
    assert count_visits(db_alias, 1) == done, "the old version has had its time"
    deploy(NEW)
    finish(queue, attempt_uuid, db_alias, visits=None)
    assert count_visits(db_alias, 10) == ROWS - done


def test_two_versions_that_serve_at_the_same_time_do_not_fight(deploy, queue, db_alias):
    attempt_uuid = begin(deploy, db_alias, queue)
    for number in range(6):
        deploy(NEW if number % 2 == 0 else OLD)
        watch(queue, attempt_uuid, db_alias)
        deliver_all(queue)
        if api.get_progress(KEY, db_alias).status == states.APPLIED:
            break
    assert get_actions(db_alias).count("change_file") == 1
    deploy(NEW)
    if api.get_progress(KEY, db_alias).status != states.APPLIED:
        finish(queue, attempt_uuid, db_alias, visits=10)
    assert count_visits(db_alias, 10) == ROWS


def test_a_deploy_that_is_rolled_back_gets_the_run_back_when_nothing_moves(deploy, queue, db_alias):
    attempt_uuid = begin(deploy, db_alias, queue)
    deploy(NEW)
    watch(queue, attempt_uuid, db_alias)
    deploy(OLD)
    queue.waiting[:] = [one for one in queue.waiting if one[0] == WATCH]
    watch(queue, attempt_uuid, db_alias)
    assert not get_waiting(queue, RUN_SHARD)
    (attempt,) = MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid)
    former = {name: {**how, "at": how["at"] - 200} for name, how in attempt.former_hashes.items()}
    recorder.update_attempt(attempt_uuid, db_alias, former_hashes=former)
    MigrationShard.objects.using(db_alias).exclude(finished_at=None).update(
        finished_at=timezone.now() - timedelta(seconds=200)
    )
    watch(queue, attempt_uuid, db_alias)
    assert get_waiting(queue, RUN_SHARD)
    finish(queue, attempt_uuid, db_alias, visits=1)


def test_what_a_person_replaced_comes_back_by_a_person_only(deploy, queue, db_alias):
    attempt_uuid = begin(deploy, db_alias, queue)
    executor.pause(KEY, db_alias, AUTHOR)
    deploy(NEW)
    api.resume_migration(KEY, db_alias)
    deploy(OLD)
    deliver_all(queue)
    for table in (MigrationRecord, MigrationShard):
        for row in table.objects.using(db_alias).all():
            for name in ("moved_at", "finished_at"):
                if getattr(row, name, None):
                    setattr(row, name, getattr(row, name) - timedelta(seconds=1000))
            row.save(using=db_alias)
    watch(queue, attempt_uuid, db_alias, 1000)
    assert not get_waiting(queue, RUN_SHARD)
    assert get_waiting(queue, WATCH), "but it looks again"
    progress = api.get_progress(KEY, db_alias)
    assert (progress.stalled, progress.waiting_for) == (True, WAITS)
    api.recover_migration(KEY, db_alias)
    finish(queue, attempt_uuid, db_alias, visits=1)


def test_a_version_that_changes_while_a_task_claims_its_shard_hands_it_back(deploy, queue, db_alias, monkeypatch):
    attempt_uuid = begin(deploy, db_alias, queue)
    shard = get_ranges(attempt_uuid, db_alias)[0]
    claim = leases.claim

    def change_meanwhile(*args):
        is_claimed = claim(*args)
        recorder.update_attempt(attempt_uuid, db_alias, source_hash="f" * 64)
        return is_claimed

    monkeypatch.setattr("massmigration.tasks.claim", change_meanwhile)
    tasks.run_shard(shard.pk, db_alias)
    stored = recorder.get_shard(shard.pk, db_alias)
    assert (stored.status, stored.waiting_for, stored.processed) == ("ready", WAITS, 0)


def test_an_unknown_version_is_adopted_without_a_word(deploy, queue, db_alias):
    attempt_uuid = begin(deploy, db_alias, queue)
    recorder.update_attempt(attempt_uuid, db_alias, source_hash="")
    deliver(queue, RUN_SHARD, 1)
    assert get_hash(attempt_uuid, db_alias) == get_loader().source_hash(KEY)
    finish(queue, attempt_uuid, db_alias, visits=1)
    assert "change_file" not in get_actions(db_alias)


def test_a_local_process_adopts_its_version_when_it_starts(deploy, db_alias):
    attempt_uuid = begin(deploy, db_alias)
    deploy(NEW)
    worker.work(api.get_migration(KEY), db_alias, attempt_uuid)
    assert count_visits(db_alias, 10) == ROWS
    assert "change_file" in get_actions(db_alias)


def test_a_local_process_ends_when_a_newer_one_has_started(deploy, db_alias, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    deploy(OLD.replace("version = 1", "batch_size = 5"))
    City.objects.using(db_alias).bulk_create([City(name=f"city {number}") for number in range(ROWS)])
    attempt_uuid = api.start_migration(KEY, db_alias, enqueue=False).attempt_uuid

    def start_a_newer_one():
        if count_visits(db_alias, 1):
            recorder.update_attempt(attempt_uuid, db_alias, source_hash="f" * 64)

    with pytest.raises(VersionReplaced, match="another version of its file than this process has imported"):
        worker.work(api.get_migration(KEY), db_alias, attempt_uuid, on_progress=start_a_newer_one)
    assert 0 < count_visits(db_alias, 1) < ROWS
    assert not MigrationShard.objects.using(db_alias).filter(status="running").exists()


def test_a_local_process_does_not_take_a_run_from_the_version_that_replaced_its_own(deploy, db_alias):
    attempt_uuid = begin(deploy, db_alias)
    former = {get_hash(attempt_uuid, db_alias): {"by": versions.WORKER, "at": 0}}
    recorder.update_attempt(attempt_uuid, db_alias, source_hash="f" * 64, former_hashes=former)
    plan = recorder.get_shards(attempt_uuid, db_alias)[0]
    assert recorder.ShardRecorder(db_alias).claim(plan, "a worker of the other version", 30, None)
    with pytest.raises(VersionReplaced):
        worker.work(api.get_migration(KEY), db_alias, attempt_uuid)
    recorder.ShardRecorder(db_alias).keep(plan, status="ready", lease_expires_at=None)
    worker.work(api.get_migration(KEY), db_alias, attempt_uuid)
    assert count_visits(db_alias, 1) == ROWS


@pytest.mark.parametrize("action", ["resume", "retry", "recover", "restart"])
def test_a_person_has_the_run_worked_with_the_version_of_her_process(deploy, queue, db_alias, action):
    attempt_uuid = begin(deploy, db_alias, queue)
    status = {"resume": states.PAUSED, "retry": states.FAILED, "restart": states.PAUSED}.get(action)
    if status is not None:
        MigrationRecord.objects.using(db_alias).update(status=status)
    deploy(NEW)
    record = getattr(executor, action)(api.get_migration(KEY), db_alias, AUTHOR)
    assert get_hash(record.attempt_uuid, db_alias) == get_loader().source_hash(KEY)
    assert ("change_file" in get_actions(db_alias)) == (record.attempt_uuid == attempt_uuid)
