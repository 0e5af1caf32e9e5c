"""Records, attempts, shards, failures and events on Datastore and Firestore, and the indexes that they need: none."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from massmigration import api, executor, recorder, states
from massmigration.databases.transactions import run_write
from massmigration.engine.leases import claim
from massmigration.exceptions import FenceLost, InvalidDefinition
from massmigration.models import MigrationAttempt, MigrationEvent, MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder import Author
from tests.cloud.app.models import Row
from tests.cloud.filling import store
from tests.cloud.support import Visit, get_visits, make, make_rows, quick, traffic, watch_traffic  # noqa: F401
from tests.conftest import ROOT
from tests.engine.support import AUTHOR, change, in_threads, run, work
from tests.servers import datastore, gcloud, processes

KEY = "cloudapp:0001_test"


def make_shards(count: int, attempt_uuid: uuid.UUID, **fields: Any) -> list[MigrationShard]:
    return [
        MigrationShard(
            id=MigrationShard.make_id(attempt_uuid, MigrationShard.RANGE, 1, number),
            attempt_uuid=attempt_uuid,
            key=KEY,
            kind=MigrationShard.RANGE,
            number=number,
            **fields,
        )
        for number in range(count)
    ]


def make_failures(count: int, attempt_uuid: uuid.UUID) -> list[MigrationFailure]:
    return [
        MigrationFailure(id=f"{number:04}", attempt_uuid=attempt_uuid, key=KEY, shard_id="s", error_class="E")
        for number in range(count)
    ]


def test_a_record_comes_back_as_it_was_stored(db_alias):
    attempt_uuid, moved_at = uuid.uuid4(), timezone.now()
    assert recorder.has_tables(db_alias)
    assert recorder.get_record(KEY, db_alias) is None
    assert recorder.insert_record(KEY, db_alias, attempt_uuid=attempt_uuid, moved_at=moved_at, error="ä" * 5000)
    assert not recorder.insert_record(KEY, db_alias)
    record = recorder.get_record(KEY, db_alias)
    assert (record.app_label, record.name, record.status) == ("cloudapp", "0001_test", states.ENQUEUED)
    assert (record.attempt_uuid, record.moved_at, record.error) == (attempt_uuid, moved_at, "ä" * 5000)
    assert recorder.get_keys(db_alias) == [KEY]


def test_an_attempt_comes_back_as_it_was_stored(db_alias):
    attempt = MigrationAttempt(key=KEY, parameters={"a": [1, None, "ä"]}, total=2**60)
    run_write(db_alias, lambda: recorder.add_attempt(attempt, db_alias))
    recorder.update_attempt(attempt.uuid, db_alias, changed=7, finished_at=attempt.started_at)
    stored = recorder.get_attempt(attempt.uuid, db_alias)
    assert (stored.parameters, stored.total, stored.changed) == ({"a": [1, None, "ä"]}, 2**60, 7)
    assert stored.finished_at == attempt.started_at
    assert [shard.kind for shard in recorder.get_shards(attempt.uuid, db_alias)] == ["plan"]
    assert recorder.get_attempt(uuid.uuid4(), db_alias) is None


def test_two_inserts_at_once_have_one_winner(db_alias):
    results = in_threads(*[lambda: run_write(db_alias, lambda: recorder.insert_record(KEY, db_alias))] * 6)
    assert sorted(results) == [False] * 5 + [True]


def test_a_move_has_one_winner_of_six(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.insert_record(KEY, db_alias, attempt_uuid=attempt_uuid, status=states.RUNNING)

    def pause(number: int) -> bool:
        author = Author(f"person {number}", "api")
        return run_write(db_alias, lambda: recorder.move(KEY, db_alias, "pause", author, of_attempt=attempt_uuid))

    results = in_threads(*[lambda number=number: pause(number) for number in range(6)])
    assert sorted(results) == [False] * 5 + [True]
    [event] = recorder.get_events(KEY, db_alias, 10)
    assert (event.actor, event.status) == (f"person {results.index(True)}", "paused")


def test_a_move_of_another_attempt_or_status_changes_nothing(db_alias):
    recorder.insert_record(KEY, db_alias, attempt_uuid=uuid.uuid4(), status=states.RUNNING)
    assert not recorder.move(KEY, db_alias, "pause", AUTHOR, of_attempt=uuid.uuid4())
    assert not recorder.move(KEY, db_alias, "resume", AUTHOR)
    assert not recorder.move("cloudapp:0009_nobody", db_alias, "pause", AUTHOR)
    assert recorder.get_record(KEY, db_alias).status == states.RUNNING
    assert not MigrationEvent.objects.using(db_alias).exists()


def test_a_move_that_is_rolled_back_leaves_no_event(db_alias):
    recorder.insert_record(KEY, db_alias, status=states.RUNNING)
    with transaction.atomic(using=db_alias):
        assert recorder.move(KEY, db_alias, "pause", AUTHOR)
        transaction.set_rollback(True, using=db_alias)
    assert recorder.get_record(KEY, db_alias).status == states.RUNNING
    assert recorder.get_events(None, db_alias, 10) == []


def test_events_are_the_newest_oldest_first(db_alias):
    for number in range(5):
        recorder.add_event(KEY, db_alias, "pause", AUTHOR, detail=str(number), parameters={"n": number})
        recorder.add_event("cloudapp:0002_other", db_alias, "resume", AUTHOR)
    assert [event.detail for event in recorder.get_events(KEY, db_alias, 3)] == ["2", "3", "4"]
    events = recorder.get_events(None, db_alias, 4)
    assert [event.action for event in events] == ["pause", "resume"] * 2
    assert events[0].parameters == {"n": 3}
    assert events == sorted(events, key=lambda event: event.at)


def test_six_claims_at_once_have_one_winner(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(1, attempt_uuid))

    barrier = threading.Barrier(6)

    def take(worker: str) -> bool:
        [shard] = recorder.get_shards(attempt_uuid, db_alias)
        barrier.wait(30)
        return claim(shard, make(Visit), db_alias, worker)

    results = in_threads(*[lambda name=name: take(name) for name in "abcdef"])
    assert sorted(results) == [False] * 5 + [True]
    [shard] = recorder.get_shards(attempt_uuid, db_alias)
    assert (shard.fence, shard.worker) == (1, "abcdef"[results.index(True)])


def test_claims_never_exceed_the_bound(db_alias):
    for bound in (1, 2):
        attempt_uuid = uuid.uuid4()
        recorder.ShardMaker(db_alias).add_shards(make_shards(6, attempt_uuid))
        shards = recorder.get_shards(attempt_uuid, db_alias)
        migration = make(Visit, max_workers=bound)
        calls = [lambda s=shard, m=migration: claim(s, m, db_alias, f"worker {s.number}") for shard in shards]
        assert sum(in_threads(*calls)) == bound
        shards = recorder.get_shards(attempt_uuid, db_alias)
        assert sum(shard.status == "running" for shard in shards) == bound
        assert not any(claim(shard, migration, db_alias, "late") for shard in shards if shard.status == "ready")


def test_a_claim_takes_what_a_lease_has_run_out_of_and_nothing_else(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(1, attempt_uuid))
    [shard] = recorder.get_shards(attempt_uuid, db_alias)
    assert run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(shard, "a", 0.0, None))
    [seen] = recorder.get_shards(attempt_uuid, db_alias)
    assert run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(seen, "b", 60.0, None))
    assert not recorder.ShardRecorder(db_alias).renew_lease(shard.pk, shard.fence, 0)
    with pytest.raises(FenceLost):
        recorder.ShardRecorder(db_alias).advance(shard, cursor="1")
    with pytest.raises(FenceLost):
        recorder.ShardRecorder(db_alias).keep(shard, status="done")
    assert recorder.ShardRecorder(db_alias).renew_lease(seen.pk, seen.fence, 60)
    recorder.ShardRecorder(db_alias).advance(seen, cursor="1", processed=3)
    stored = recorder.get_shard(seen.pk, db_alias)
    assert (stored.cursor, stored.processed, stored.worker, stored.fence) == ("1", 3, "b", 2)
    with pytest.raises(FenceLost):  # its cursor is another by now
        recorder.ShardRecorder(db_alias).advance(seen, cursor="2")


def test_an_advance_has_one_winner_of_six(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(1, attempt_uuid, status="running", fence=4))

    barrier = threading.Barrier(6)

    def advance(number: int) -> bool:
        [shard] = recorder.get_shards(attempt_uuid, db_alias)
        barrier.wait(30)
        try:
            run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).advance(shard, cursor=str(number)))
        except FenceLost:
            return False
        return True

    results = in_threads(*[lambda number=number: advance(number) for number in range(6)])
    assert sorted(results) == [False] * 5 + [True]
    assert recorder.get_shards(attempt_uuid, db_alias)[0].cursor == str(results.index(True))


def test_a_split_has_one_winner_and_is_refused_after_a_move(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(1, attempt_uuid, status="running"))
    [shard] = recorder.get_shards(attempt_uuid, db_alias)
    calls = [
        lambda n=n: run_write(db_alias, lambda: recorder.ShardMaker(db_alias).split_shard(shard, "5", n))
        for n in (1, 2, 3)
    ]
    assert sum(new is not None for new in in_threads(*calls)) == 1
    lower, upper = recorder.get_shards(attempt_uuid, db_alias)
    assert (lower.lower, lower.upper, upper.lower, upper.upper) == (None, "5", "5", None)
    assert (upper.status, upper.kind) == ("ready", "range")
    assert run_write(db_alias, lambda: recorder.ShardMaker(db_alias).split_shard(shard, "3", 9)) is None
    assert run_write(db_alias, lambda: recorder.ShardMaker(db_alias).split_shard(lower, "3", upper.number)) is None


def test_shards_that_stand_there_are_left_as_they_are(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(2, attempt_uuid, status="done"))
    run_write(db_alias, lambda: recorder.ShardMaker(db_alias).add_shards(make_shards(4, attempt_uuid)))
    assert [shard.status for shard in recorder.get_shards(attempt_uuid, db_alias)] == ["done", "done", "ready", "ready"]
    recorder.ShardMaker(db_alias).add_shards([])
    assert recorder.get_shards(None, db_alias) == []


def test_more_shards_than_a_transaction_can_write_are_refused(db_alias):
    with pytest.raises(InvalidDefinition, match=r"cloudapp:0001_test has 401 shards.*at most 400\. Make fewer"):
        recorder.ShardMaker(db_alias).add_shards(make_shards(401, uuid.uuid4()))
    assert not MigrationShard.objects.using(db_alias).exists()


def test_hundreds_of_shards_are_planned_and_a_restart_deletes_them(db_alias):
    old = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(400, old, status="done"))
    more = make_shards(50, old, status="done")
    for shard in more:
        shard.id += "-2"
    store(more, db_alias)
    recorder.insert_record(KEY, db_alias, status=states.APPLIED, attempt_uuid=old)
    executor.restart(make(Visit), db_alias, AUTHOR, enqueue=False)
    assert recorder.get_shards(old, db_alias) == []
    new = recorder.get_record(KEY, db_alias).attempt_uuid
    assert len(recorder.get_shards(new, db_alias)) == 1


def test_free_shards_takes_them_from_their_workers(db_alias):
    attempt_uuid, now = uuid.uuid4(), timezone.now()
    ready, held, expired, failed, done = shards = make_shards(5, attempt_uuid)
    ready.not_before, ready.waiting_for = now + timedelta(hours=1), "the night"
    held.status, held.lease_expires_at = "running", now + timedelta(seconds=60)
    expired.status, expired.lease_expires_at = "running", now - timedelta(hours=1)
    failed.status, done.status = "failed", "done"
    recorder.ShardMaker(db_alias).add_shards(shards)
    assert run_write(db_alias, lambda: recorder.free_shards(attempt_uuid, db_alias, only_expired=True)) == 1
    stored = recorder.get_shards(attempt_uuid, db_alias)
    assert [shard.status for shard in stored] == ["ready", "running", "ready", "failed", "done"]
    assert [shard.fence for shard in stored] == [0, 0, 1, 0, 0]
    assert (stored[0].not_before, stored[0].waiting_for) == (None, "")
    assert run_write(db_alias, lambda: recorder.free_shards(attempt_uuid, db_alias)) == 2
    stored = recorder.get_shards(attempt_uuid, db_alias)
    assert [shard.status for shard in stored] == ["ready"] * 4 + ["done"]
    assert [shard.fence for shard in stored] == [0, 1, 1, 1, 0]
    run_write(db_alias, lambda: recorder.open_again([done.pk], db_alias))
    assert recorder.get_shard(done.pk, db_alias).status == "ready"


def test_note_enqueued_leaves_a_shard_alone_that_was_taken(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.ShardMaker(db_alias).add_shards(make_shards(1, attempt_uuid))
    [shard] = recorder.get_shards(attempt_uuid, db_alias)
    recorder.ShardRecorder(db_alias).record_enqueued(shard)
    assert recorder.get_shard(shard.pk, db_alias).enqueued_at > shard.enqueued_at
    assert claim(recorder.get_shard(shard.pk, db_alias), make(Visit), db_alias, "a")
    before = recorder.get_shard(shard.pk, db_alias).enqueued_at
    recorder.ShardRecorder(db_alias).record_enqueued(shard)
    assert recorder.get_shard(shard.pk, db_alias).enqueued_at == before


def test_failures_are_kept_counted_and_closed_by_hundreds(db_alias):
    attempt_uuid = uuid.uuid4()
    failures = make_failures(450, attempt_uuid)
    failures[7].message, failures[7].traceback = "ö" * 2000, "line\n" * 4000
    store(failures, db_alias)
    recorder.keep_failure(failures[7], db_alias)
    assert recorder.count_open_failures(attempt_uuid, db_alias) == 450
    assert recorder.count_open_failures(uuid.uuid4(), db_alias) == recorder.count_open_failures(None, db_alias) == 0
    stored = recorder.get_failures(attempt_uuid, db_alias)
    assert (stored[7].message, stored[7].traceback) == ("ö" * 2000, "line\n" * 4000)
    recorder.close_failures(stored, db_alias, "retried")
    assert recorder.count_open_failures(attempt_uuid, db_alias) == 0
    assert len(recorder.get_failures(attempt_uuid, db_alias)) == 450


def test_keep_totals_sums_the_ranges(db_alias):
    attempt = MigrationAttempt(key=KEY)
    run_write(db_alias, lambda: recorder.add_attempt(attempt, db_alias))
    recorder.ShardMaker(db_alias).add_shards(make_shards(3, attempt.uuid, processed=5, changed=2))
    run_write(db_alias, lambda: recorder.keep_totals(attempt.uuid, db_alias, warning="w"))
    stored = recorder.get_attempt(attempt.uuid, db_alias)
    assert (stored.processed, stored.changed, stored.shards, stored.warning) == (15, 6, 3, "w")
    assert stored.finished_at


def test_delete_record_takes_its_shards_and_leaves_its_events(db_alias):
    attempt_uuid = uuid.uuid4()
    recorder.insert_record(KEY, db_alias, attempt_uuid=attempt_uuid, status=states.RUNNING)
    recorder.ShardMaker(db_alias).add_shards(make_shards(3, attempt_uuid))
    recorder.add_event(KEY, db_alias, "start", AUTHOR)
    delete = lambda of: run_write(db_alias, lambda: recorder.delete_record(KEY, db_alias, AUTHOR, of))  # noqa: E731
    assert not delete(attempt_uuid)
    recorder.move(KEY, db_alias, "cancel", AUTHOR)
    assert not delete(uuid.uuid4())
    assert delete(attempt_uuid)
    assert recorder.get_record(KEY, db_alias) is None
    assert not MigrationShard.objects.using(db_alias).exists()
    actions = [event.action for event in recorder.get_events(KEY, db_alias, 10)]
    assert actions == ["start", "cancel", "reset"]


class Picky(Visit):
    on_error = "skip"
    shard_count = 3
    batch_size = 5
    is_mended = False

    def operation(self, row, db_alias):
        super().operation(row, db_alias)
        if row.name in ("row 3", "row 17") and not self.is_mended:
            raise ValueError("cannot be worked")


def live_through_it_all(db_alias: str) -> None:
    """Do on a database what can be done there, so that every kind of query is sent."""
    make_rows(db_alias, 30)
    migration = make(Picky)
    assert run(migration, db_alias).failed == 2
    change(migration, is_mended=True)
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    executor.pause(migration.key, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert api.get_all_progress([db_alias])
    assert api.get_events(KEY, db_alias)
    assert get_visits(db_alias) == {1: 30}
    executor.restart(make(Picky, max_workers=2, update_fields=()), db_alias, AUTHOR, enqueue=False)
    executor.cancel(KEY, db_alias, AUTHOR)
    executor.reset(KEY, db_alias, AUTHOR)
    own_filter = make(Visit, get_queryset=lambda self, alias: Row.objects.using(alias).filter(visits=1), shard_count=3)
    assert run(own_filter, db_alias).status == "applied"
    assert get_visits(db_alias) == {2: 30}


@pytest.mark.parametrize("model", list(apps.get_app_config("massmigration").get_models()), ids=lambda m: m.__name__)
def test_rows_are_ordered_by_their_key(model):
    """By an excluded field Datastore finds no row at all, and Firestore wants an index of two fields."""
    assert model._meta.ordering in (["pk"], [model._meta.pk.name])


@pytest.fixture
def strict_datastore(clean_databases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put an emulator in the place of ``datastore`` that refuses queries whose index is not in our ``index.yaml``."""
    directory, port = tmp_path / "datastore", processes.get_free_port()
    (directory / "data").mkdir(parents=True)
    root = gcloud._get_root(shutil.which("gcloud") or "")
    program = root / "platform" / datastore.COMPONENT / "cloud_datastore_emulator"
    command = [str(program), "start", "--host=127.0.0.1", f"--port={port}", "--store_on_disk=False"]
    command += ["--firestore_in_datastore_mode", "--require_indexes", f"--index_file={ROOT / 'index.yaml'}", "data"]
    options = {"stop": processes.KILL_GROUP, "env": gcloud.get_environment()}
    server = processes.start("The strict emulator", port, command, directory, **options)
    server.wait(gcloud.is_ready)
    connections["datastore"].close()
    monkeypatch.setitem(os.environ, datastore.HOST, server.address)
    yield
    connections["datastore"].close()
    server.stop()


def test_no_query_needs_an_index_that_is_not_declared(strict_datastore, traffic):  # noqa: F811
    live_through_it_all("datastore")
    assert traffic.find_indexes() == []
    with pytest.raises(DatabaseError, match="requires a composite index"):
        list(Row.objects.using("datastore").filter(flag=False).order_by("-visits"))
    traffic.queries.clear()


def test_no_query_is_more_than_equal_values_and_the_key(db_alias):
    with watch_traffic() as seen:
        live_through_it_all(db_alias)
    assert seen.find_indexes() == []
    tables = {model._meta.db_table for model in (MigrationRecord, MigrationShard, MigrationEvent, Row)}
    assert {query.kind for query in seen.queries} >= tables
    assert {name for query in seen.queries for name, _ in query.filters} >= {"attempt_uuid", "visits"}


def test_a_query_that_would_need_an_index_is_noticed(db_alias, traffic):  # noqa: F811
    with watch_traffic() as seen:
        list(Row.objects.using(db_alias).filter(flag=False).order_by("visits"))
        list(Row.objects.using(db_alias).filter(flag=False, visits=1))
        list(Row.objects.using(db_alias).filter(visits__gt=1))
        list(Row.objects.using(db_alias).filter(flag=False, pk__gt=5).order_by("pk"))
    assert len(seen.find_indexes()) == 2
    traffic.queries.clear()
