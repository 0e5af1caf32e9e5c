"""The recorder's verbs: who comes late with an old fence changes nothing, whatever it wants to write."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import massmigration
from massmigration import MapperMigration, recorder
from massmigration.engine.slice import LOST, Slice
from massmigration.exceptions import FenceLost
from massmigration.models import MigrationShard
from massmigration.recorder import Part, ShardMaker, ShardRecorder
from tests.engine.support import claim_range, in_threads, make, start
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

HELD: dict[str, Callable[[ShardRecorder, MigrationShard], object]] = {
    "advance": lambda writer, shard: writer.advance(shard, cursor="7", processed=99),
    "keep": lambda writer, shard: writer.keep(shard, left_matching=99),
    "finish_shard": lambda writer, shard: writer.finish_shard(shard),
    "fail_shard": lambda writer, shard: writer.fail_shard(shard),
    "release_shard": lambda writer, shard: writer.release_shard(shard, rest_seconds=5, is_loss=True),
}
"""What a worker may only do that holds the shard."""

READ: dict[str, tuple[str, Callable[[str, MigrationShard], object]]] = {
    "renew_lease": ("running", lambda alias, shard: ShardRecorder(alias).renew_lease(shard.pk, shard.fence, 99)),
    "claim": ("ready", lambda alias, shard: ShardRecorder(alias).claim(shard, "late", 30, None)),
    "claim of a lost one": ("running", lambda alias, shard: ShardRecorder(alias).claim(shard, "late", 30, None)),
    "record_enqueued": ("ready", lambda alias, shard: ShardRecorder(alias).record_enqueued(shard)),
    "record_waiting": ("ready", lambda alias, shard: ShardRecorder(alias).record_waiting(shard, "a friend")),
    "split_shard": ("running", lambda alias, shard: ShardMaker(alias).split_shard(shard, "5", 7)),
    "skip_object": ("failed", lambda alias, shard: recorder.skip_object(shard, "7", alias)),
    "free_shards": (
        "running",
        lambda alias, shard: recorder.free_shards(shard.attempt_uuid, alias, only_expired=True, shards=[shard]),
    ),
}
"""What is done to a shard as it was read a moment ago: with the status in which it may be done."""


def add_shard(db_alias: str, status: str) -> MigrationShard:
    """Store a shard, have another process raise its fence, and return it as it was before."""
    attempt_uuid = uuid.uuid4()
    ShardMaker(db_alias).add_ranges(attempt_uuid, "testapp:0001_test", [Part("1", "9")])
    rows = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    rows.update(status=status, fence=3, cursor="3", worker="a worker")
    late = rows.get()
    rows.update(fence=4)
    return late


def read_all(db_alias: str) -> list[dict[str, Any]]:
    return list(MigrationShard.objects.using(db_alias).values())


@pytest.mark.parametrize("verb", HELD)
def test_a_late_worker_is_refused(db_alias, verb):
    late = add_shard(db_alias, "running")
    before = read_all(db_alias)
    with pytest.raises(FenceLost, match=f"Shard {late.pk} was taken from worker a worker"):
        HELD[verb](ShardRecorder(db_alias), late)
    assert read_all(db_alias) == before
    late.fence += 1
    HELD[verb](ShardRecorder(db_alias), late)
    assert read_all(db_alias) != before


@pytest.mark.parametrize("verb", HELD)
def test_a_worker_whose_shard_is_nobodys_is_refused(db_alias, verb):
    late = add_shard(db_alias, "ready")
    late.fence += 1
    before = read_all(db_alias)
    with pytest.raises(FenceLost):
        HELD[verb](ShardRecorder(db_alias), late)
    assert read_all(db_alias) == before


@pytest.mark.parametrize("verb", READ)
def test_who_has_read_a_shard_before_its_fence_rose_changes_nothing(db_alias, verb):
    status, call = READ[verb]
    late = add_shard(db_alias, status)
    before = read_all(db_alias)
    assert not call(db_alias, late)
    assert read_all(db_alias) == before
    late.fence += 1
    call(db_alias, late)
    assert read_all(db_alias) != before


class Visit(MapperMigration):
    """Its first batch waits in the middle until the test lets it continue."""

    update_fields = ["visits"]
    batch_size = 5
    entered: threading.Event
    may_continue: threading.Event

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1
        self.entered.set()
        assert self.may_continue.wait(30)


def test_the_batch_of_a_late_worker_is_rolled_back_and_moves_no_cursor(db_alias):
    """Its successor has not committed a batch yet, so that nothing but the fence tells them apart."""
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(20))
    events = {"entered": threading.Event(), "may_continue": threading.Event()}
    migration = make(type("Migration", (Visit,), events))
    start(migration, db_alias)
    late = claim_range(migration, db_alias, "late")

    def take_over() -> MigrationShard:
        assert migration.entered.wait(30)
        rows = MigrationShard.objects.using(db_alias).filter(pk=late.pk)
        rows.update(lease_until=0, lease_expires_at=None)
        successor = rows.get()
        assert ShardRecorder(db_alias).claim(successor, "successor", 30, None)
        migration.may_continue.set()
        return successor

    outcome, successor = in_threads(lambda: Slice(late, migration, db_alias).run(), take_over)
    stored = MigrationShard.objects.using(db_alias).get(pk=late.pk)
    assert (stored.cursor, stored.processed, stored.batches) == (None, 0, 0)
    assert (stored.status, stored.worker, stored.fence) == ("running", "successor", successor.fence)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {0}
    assert outcome == LOST
    assert Slice(successor, migration, db_alias).run() == "done"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


@pytest.mark.parametrize(("error", "places"), [("FenceLost", {"recorder/holding.py"}), ("RetryLater", set())])
def test_errors_of_the_public_tree_mean_one_thing_only(error, places):
    """What is no lost fence is Stopped, and a rest that no author asked for is a Rest: see ``engine/leaving.py``."""
    package = Path(massmigration.__file__).parent
    files = [path for path in package.rglob("*.py") if "massmigrations" not in path.parts]
    assert {str(path.relative_to(package)) for path in files if f"raise {error}(" in path.read_text()} == places


def test_only_the_recorder_makes_shards_and_takes_them_from_workers():
    package = Path(massmigration.__file__).parent
    for path in package.rglob("*.py"):
        text, place = path.read_text(), str(path.relative_to(package))
        if not place.startswith(("recorder/", "testing/", "models.py", "databases/clock.py")):
            assert not re.search(r"MigrationShard\(|NO_LEASE", text), place
