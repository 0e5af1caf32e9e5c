"""Exactly once on Datastore and Firestore: many workers, taken leases, a site that writes meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.db.models import F
from django.utils import timezone

from massmigration import executor, recorder, worker
from massmigration.databases.transactions import run_write
from massmigration.engine.batch import BatchRunner
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import claim, make_worker_name
from massmigration.engine.slice import LOST, Slice
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationEvent, MigrationShard
from tests.cloud.app.models import Row
from tests.cloud.support import Save, Visit, get_visits, make, make_rows, quick, traffic  # noqa: F401
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, run, start, work

KEY = "cloudapp:0001_test"


def run_with(workers: int, definition: type, db_alias: str, **attributes):
    """Start a definition and work it off in so many threads; each makes its own instance, as processes do."""
    attempt_uuid = start(make(definition, **attributes), db_alias)
    in_threads(*[lambda: worker.work(make(definition, **attributes), db_alias, attempt_uuid)] * workers)
    return get_progress(KEY, db_alias, make(definition, **attributes))


class SetFlag(Visit):
    """Changes its own filter."""

    update_fields = ["visits", "flag"]

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(flag=False)

    def operation(self, row, db_alias):
        row.visits += 1
        row.flag = True


@pytest.mark.parametrize("definition", [Visit, SetFlag, Save])
def test_three_workers_visit_every_row_once(db_alias, definition):
    make_rows(db_alias, 100)
    progress = run_with(3, definition, db_alias, shard_count=4, batch_size=9)
    assert (progress.status, progress.processed, progress.shards) == ("applied", 100, 4)
    assert get_visits(db_alias) == {1: 100}


def test_three_workers_without_leases_on_one_shard_visit_every_row_once(db_alias):
    """As if all of them had been frozen past their leases: each believes that the shard is its own."""
    make_rows(db_alias, 60)
    migration = make(Visit, batch_size=5)
    start(migration, db_alias)
    held = claim_range(migration, db_alias)
    shards = [recorder.get_shard(held.pk, db_alias) for _ in range(3)]
    outcomes = in_threads(*[lambda s=shard: Slice(s, make(Visit, batch_size=5), db_alias).run() for shard in shards])
    assert set(outcomes) <= {"done", LOST}
    shard = recorder.get_shard(held.pk, db_alias)
    assert shard.processed == Row.objects.using(db_alias).filter(visits=1).count()
    assert set(get_visits(db_alias)) <= {0, 1}
    executor.pause(KEY, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).processed == 60
    assert get_visits(db_alias) == {1: 60}


@pytest.mark.parametrize("definition", [Visit, Save])
def test_a_worker_that_is_frozen_past_its_lease_writes_nothing_more(db_alias, settings, definition: Any):
    settings.MASSMIGRATION_LEASE_SECONDS = 60
    make_rows(db_alias, 40)
    entered, go_on = threading.Event(), threading.Event()

    class Frozen(definition):
        def operation(self, row, db_alias):
            super().operation(row, db_alias)
            if not entered.is_set():
                entered.set()
                assert go_on.wait(60)

    migration = make(definition, batch_size=10)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)

    def take_over():
        assert entered.wait(60)
        past = timezone.now() - timedelta(minutes=1)
        MigrationShard.objects.using(db_alias).filter(pk=shard.pk).update(lease_expires_at=past)
        assert work(migration, db_alias).status == "applied"
        go_on.set()

    outcome, _ = in_threads(lambda: Slice(shard, make(Frozen, batch_size=10), db_alias).run(), take_over)
    assert outcome == LOST
    visits = get_visits(db_alias)
    if definition is Visit:
        assert visits == {1: 40}
    else:  # at least once, and at most the one batch in hand again
        assert set(visits) <= {1, 2} and visits.get(2, 0) <= 10
    assert get_progress(KEY, db_alias, migration).processed == 40


def test_a_heartbeat_keeps_the_shard_of_a_slow_operation(db_alias, settings):
    settings.MASSMIGRATION_LEASE_SECONDS = 2  # a beat three times as often, which an emulator may take long to write
    make_rows(db_alias, 2)

    class Slow(Save):
        def operation(self, row, db_alias):
            time.sleep(2.6)
            super().operation(row, db_alias)

    progress = run_with(2, Slow, db_alias, shard_count=1)
    assert (progress.status, progress.processed) == ("applied", 2)
    assert get_visits(db_alias) == {1: 2}


def test_a_site_that_writes_meanwhile_loses_nothing(db_alias):
    """G9: each row is renamed and counted by the site while three workers write the slug of its name."""
    make_rows(db_alias, 120, note="old")
    is_over = threading.Event()
    renamed: Counter[int] = Counter()

    class Slug(Visit):
        update_fields = ["note", "visits"]
        shard_count = 3
        batch_size = 12

        def operation(self, row, db_alias):
            row.note = row.name.upper()
            row.visits += 1

    def edit():
        keys = [row.pk for row in Row.objects.using(db_alias)][::5]
        while not is_over.is_set():
            for number, key in enumerate(keys):
                name = f"renamed {number}"
                run_write(
                    db_alias,
                    lambda key=key, name=name: (
                        Row.objects.using(db_alias).filter(pk=key).update(name=name, visits=F("visits") + 100)
                    ),
                )
                renamed[key] += 1
                time.sleep(0.002)

    def migrate():
        try:
            return run_with(3, Slug, db_alias)
        finally:
            is_over.set()

    names = {row.pk: row.name for row in Row.objects.using(db_alias)}
    progress, _ = in_threads(migrate, edit)
    assert (progress.status, progress.processed) == ("applied", 120)
    for row in Row.objects.using(db_alias):
        assert row.visits == 1 + 100 * renamed[row.pk], row.name
        # From the name that it had when its turn came: the site has the last word on the name only.
        assert row.note in (names[row.pk].upper(), row.name.upper())


class Rename(Visit):
    """The site renames a row while its batch is in hand."""

    update_fields = ["note"]
    edits = 0
    most_edits = 1

    def operation(self, row, db_alias):
        row.note = row.name.upper()
        if row.name.startswith(("row 5", "Renamed")) and self.edits < self.most_edits:
            type(self).edits += 1
            rows, name = Row.objects.using(db_alias).filter(pk=row.pk), f"Renamed {self.edits}"
            in_threads(lambda: rows.update(name=name, visits=7))


def test_an_edited_row_keeps_the_edit_and_gets_the_right_value(db_alias):
    make_rows(db_alias, 10)
    progress = run(make(Rename), db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 10, 10)
    row = Row.objects.using(db_alias).get(visits=7)
    assert (row.name, row.note) == ("Renamed 1", "RENAMED 1")


def test_a_row_that_is_edited_at_many_visits_is_done_when_it_is_calm(db_alias):
    make_rows(db_alias, 10)
    progress = run(make(Rename, most_edits=22), db_alias)
    assert (progress.status, progress.processed) == ("applied", 10)
    row = Row.objects.using(db_alias).get(visits=7)
    assert (row.name, row.note) == ("Renamed 22", "RENAMED 22")


def test_overwrite_does_not_look_and_still_keeps_other_fields(db_alias):
    make_rows(db_alias, 10)
    assert run(make(Rename, on_conflict="overwrite"), db_alias).status == "applied"
    row = Row.objects.using(db_alias).get(visits=7)
    assert (row.name, row.note) == ("Renamed 1", "ROW 5")


def test_an_edit_between_the_look_and_the_commit_is_noticed(db_alias):
    """The transaction fails if a row that it compared was written before the commit."""
    make_rows(db_alias, 10)

    class Late(Visit):
        edits = 0

        def operation(self, row, db_alias):
            row.visits += 1

    migration = make(Late)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    written, seen = [], []

    kind = get_kind(migration).make_processor(db_alias)
    write = kind.write

    def write_late(batch, shard):
        if not written:
            written.append(batch.objects[0].pk)
            rows = Row.objects.using(db_alias).filter(pk=written[0])

            def edit():
                try:
                    rows.update(name="edited")
                    seen.append("edited")
                except OperationalError:  # the emulator may let the site wait for our locks instead
                    seen.append("refused")

            thread = threading.Thread(target=edit, daemon=True)
            thread.start()
            thread.join(2)
        return write(batch, shard)

    kind.write = write_late

    runner = BatchRunner(kind, shard)
    while runner.run():
        pass
    deadline = time.monotonic() + 30
    while not seen and time.monotonic() < deadline:
        time.sleep(0.05)
    assert get_visits(db_alias) == {1: 10}
    assert Row.objects.using(db_alias).filter(name="edited").count() == seen.count("edited")


def test_rows_added_and_deleted_meanwhile_skip_no_others(db_alias):
    make_rows(db_alias, 200)

    class WhileOthersWrite(Visit):
        batch_size = 20
        shard_count = 3
        until_empty = False

        def operation(self, row, db_alias):
            super().operation(row, db_alias)
            if row.name == "row 30" and not Row.objects.using(db_alias).filter(name="new 0").exists():
                Row.objects.using(db_alias).bulk_create(Row(name=f"new {number}") for number in range(60))
                for name in ("row 0", "row 1", "row 30", "row 60", "row 150", "row 199"):
                    Row.objects.using(db_alias).filter(name=name).delete()

    assert run(make(WhileOthersWrite), db_alias).status == "applied"
    rows = list(Row.objects.using(db_alias))
    assert len(rows) == 254
    assert {row.visits for row in rows if row.name.startswith("row")} == {1}
    assert {row.visits for row in rows if row.name.startswith("new")} <= {0, 1}


def test_rows_that_come_in_behind_the_cursors_are_caught(db_alias):
    make_rows(db_alias, 60)

    class Grows(SetFlag):
        batch_size = 10
        added = 0

        def operation(self, row, db_alias):
            super().operation(row, db_alias)
            if type(self).added < 30 and row.name.startswith("row"):
                type(self).added += 1
                Row.objects.using(db_alias).create(pk=type(self).added, name="new")  # the smallest keys of all

    progress = run(make(Grows), db_alias)
    assert (progress.status, progress.processed) == ("applied", 90)
    assert get_visits(db_alias) == {1: 90}


@pytest.mark.parametrize("count", [10, 450])
def test_rows_that_still_match_after_their_visit_are_visited_once_and_told(db_alias, count):
    make_rows(db_alias, count)

    class LooksAgain(Visit):
        update_fields = ("flag", "visits")
        batch_size = 400

        def get_queryset(self, db_alias):
            return Row.objects.using(db_alias).filter(flag=False)

    progress = run(make(LooksAgain), db_alias)
    assert (progress.status, progress.processed) == ("applied", count)
    assert "still match the queryset" in progress.warning
    assert get_visits(db_alias) == {1: count}


@pytest.mark.parametrize("definition", [Visit, Save])
def test_a_pause_in_mid_run_and_a_resume_repeat_nothing(db_alias, settings, definition: Any):
    settings.MASSMIGRATION_RECORD_CACHE_TIMEOUT = 0
    make_rows(db_alias, 60)
    entered, go_on = threading.Event(), threading.Event()

    class Slow(definition):
        def operation(self, row, db_alias):
            super().operation(row, db_alias)
            if not entered.is_set():
                entered.set()
                assert go_on.wait(60)

    migration = make(Slow, batch_size=20)
    start(migration, db_alias)

    def pause():
        assert entered.wait(60)
        began_at = time.monotonic()
        executor.pause(KEY, db_alias, AUTHOR)
        assert time.monotonic() - began_at < 5
        go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(KEY, db_alias, migration)
    assert (progress.status, progress.workers_alive) == ("paused", 0)
    assert progress.processed == get_visits(db_alias).get(1, 0) < 60
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).processed == 60
    assert get_visits(db_alias) == {1: 60}


def test_a_cancelled_attempts_late_batch_changes_nothing(db_alias):
    make_rows(db_alias, 30)
    migration = make(Visit)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    executor.cancel(KEY, db_alias, AUTHOR)
    executor.reset(KEY, db_alias, AUTHOR)
    start(migration, db_alias)
    runner = Slice(shard, migration, db_alias)
    runner._stops_between_batches = lambda: False  # as if the status were read too late
    assert runner.run() == LOST
    assert get_visits(db_alias) == {0: 30}
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == {1: 30}


def test_two_starts_at_once_one_wins_and_the_others_get_a_sentence(db_alias):
    make_rows(db_alias, 5)
    barrier = threading.Barrier(4)

    def try_to_start():
        barrier.wait(30)
        try:
            return executor.start(make(Visit), db_alias, AUTHOR, enqueue=False).attempt_uuid
        except IllegalMove as refusal:
            return str(refusal)

    results = in_threads(*[try_to_start] * 4)
    sentences = [result for result in results if isinstance(result, str)]
    assert len(sentences) == 3
    for sentence in sentences:
        assert sentence.startswith(f"{KEY} is already enqueued on database '{db_alias}'")
    assert MigrationShard.objects.using(db_alias).count() == 1
    assert MigrationEvent.objects.using(db_alias).count() == 1
    assert work(make(Visit), db_alias).processed == 5
    assert get_visits(db_alias) == {1: 5}


def test_resume_and_cancel_at_once_end_cancelled(db_alias):
    migration = make(Visit)
    start(migration, db_alias)
    executor.pause(KEY, db_alias, AUTHOR)

    def attempt(act):
        try:
            act()
        except IllegalMove as refusal:
            return refusal.status
        return "done"

    results = in_threads(
        lambda: attempt(lambda: executor.cancel(KEY, db_alias, AUTHOR)),
        lambda: attempt(lambda: executor.resume(migration, db_alias, AUTHOR, enqueue=False)),
    )
    assert results in (["done", "done"], ["done", "cancelled"])
    assert recorder.get_record(KEY, db_alias).status == "cancelled"


def test_an_exception_after_the_commit_repeats_nothing(db_alias, caplog):
    make_rows(db_alias, 30)
    raised = []

    class Noisy(Visit):
        batch_size = 10

        def get_queryset(self, db_alias):
            return Row.objects.using(db_alias)

    migration = make(Noisy)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)

    kind = get_kind(migration).make_processor(db_alias)
    write = kind.write

    def explode():
        raised.append(1)
        raise ValueError("after the commit")

    def write_and_explode(batch, shard):
        transaction.on_commit(explode, using=db_alias)
        return write(batch, shard)

    kind.write = write_and_explode
    runner = BatchRunner(kind, shard)
    while runner.run():
        pass
    assert len(raised) == 3
    assert get_visits(db_alias) == {1: 30}


def test_recover_hands_a_dead_workers_shard_to_another(db_alias):
    make_rows(db_alias, 30)
    migration = make(Visit)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias, make_worker_name())
    past = timezone.now() - timedelta(minutes=1)
    MigrationShard.objects.using(db_alias).filter(pk=shard.pk).update(lease_expires_at=past)
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    stored = recorder.get_shard(shard.pk, db_alias)
    assert (stored.status, stored.worker, stored.fence) == ("ready", "", shard.fence + 1)
    assert claim(stored, migration, db_alias, "b")
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)  # worked on: left alone
    assert recorder.get_shard(shard.pk, db_alias).worker == "b"
    MigrationShard.objects.using(db_alias).filter(pk=shard.pk).update(lease_expires_at=past)
    assert work(migration, db_alias).processed == 30
    assert get_visits(db_alias) == {1: 30}


@pytest.mark.parametrize("action", ["fake", "restart", "reset"])
def test_what_is_over_may_be_done_again_or_forgotten(db_alias, action):
    make_rows(db_alias, 12)
    migration = make(Visit, shard_count=3)
    if action == "fake":
        executor.fake(migration, db_alias, AUTHOR)
        record = recorder.get_record(KEY, db_alias)
        assert (record.status, record.faked) == ("applied", True)
        executor.reset(KEY, db_alias, AUTHOR)
        assert run(migration, db_alias).processed == 12
        return
    assert run(migration, db_alias).processed == 12
    if action == "restart":
        executor.restart(migration, db_alias, AUTHOR, enqueue=False)
        progress = work(migration, db_alias)
    else:
        executor.reset(KEY, db_alias, AUTHOR)
        progress = run(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 12)
    assert get_visits(db_alias) == {2: 12}
