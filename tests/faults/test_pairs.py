"""Two at the same moment, on connections of their own: what comes of it is defined, whoever is first."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from massmigration import MapperMigration, executor, recorder, states, tasks
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.leases import claim
from massmigration.engine.slice import Slice
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationAttempt, MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import AUTHOR, change, claim_range, in_threads, make, start, work
from tests.faults import table
from tests.faults.invariants import check_end, check_numbers
from tests.faults.support import get_visits, make_cities
from tests.testapp.models import City

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "postgres"]), needs_postgres]

ALIAS = "postgres"
REPETITIONS = 15
ROWS = 12


class Visit(MapperMigration):
    update_fields = ["visits"]
    batch_size = 4
    shard_count = 2
    seconds = 0.0

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        time.sleep(self.seconds)
        city.visits += 1


class OneIsBad(Visit):
    is_mended = False

    def operation(self, city, db_alias):
        if city.name == "City 7" and not self.is_mended:
            raise ValueError("cannot be worked")
        super().operation(city, db_alias)


@pytest.fixture
def migration() -> Visit:
    make_cities(ALIAS, ROWS)
    return make(Visit)


def at_once(chance: random.Random, *calls: Callable[[], Any]) -> list[Any]:
    """Call at the same moment, give or take some milliseconds; return what each returned or was refused with."""
    barrier = threading.Barrier(len(calls))
    delays = [chance.choice([0, 0, 0.002, 0.005, 0.01]) for _ in calls]

    def begin(number: int) -> Any:
        recorder.get_keys(ALIAS)  # connects
        barrier.wait(30)
        time.sleep(delays[number])
        try:
            return calls[number]()
        except IllegalMove as refusal:
            return refusal

    return in_threads(*(lambda number=number: begin(number) for number in range(len(calls))))


def get_status(migration: MapperMigration) -> str:
    record = recorder.get_record(migration.key, ALIAS)
    return record.status if record is not None else states.NOT_RUN


def end(migration: MapperMigration, visits: int) -> None:
    """See that the run ends, and that each row was visited so often in all attempts."""
    progress = work(migration, ALIAS)
    assert (progress.status, progress.processed) == ("applied", ROWS)
    check_end(migration.key, ALIAS, visits=ROWS)
    assert get_visits(ALIAS) == {visits}


def test_start_against_start(migration, chance):
    for repetition in range(1, REPETITIONS + 1):
        begin = lambda: executor.start(make(Visit), ALIAS, AUTHOR, enqueue=False)  # noqa: E731
        results = at_once(chance, begin, begin)
        refusals = [result for result in results if isinstance(result, IllegalMove)]
        assert len(refusals) == 1, results
        assert refusals[0].status == states.ENQUEUED
        assert "is already enqueued on database" in str(refusals[0])
        assert MigrationAttempt.objects.using(ALIAS).count() == repetition
        end(migration, repetition)
        executor.reset(migration.key, ALIAS, AUTHOR)
    table.count("start against start", ALIAS, REPETITIONS)


def claim_finish(migration: MapperMigration) -> MigrationShard:
    """Do all of a run but its last step, and take that."""
    attempt_uuid = start(migration, ALIAS)
    while True:
        for shard in recorder.get_shards(attempt_uuid, ALIAS):
            if shard.status == MigrationShard.READY and claim(shard, migration, ALIAS, "a"):
                if shard.kind == MigrationShard.FINISH:
                    return shard
                Slice(shard, migration, ALIAS).run()
        make_finish_if_due(migration, ALIAS, attempt_uuid)


def test_pause_against_finish(migration, chance):
    seen: Counter[str] = Counter()
    for repetition in range(1, REPETITIONS + 1):
        shard = claim_finish(migration)
        _, answer = at_once(
            chance,
            lambda shard=shard: Slice(shard, migration, ALIAS).run(),
            lambda: executor.pause(migration.key, ALIAS, AUTHOR),
        )
        status = get_status(migration)
        seen[status] += 1
        assert status == ("applied" if isinstance(answer, IllegalMove) else "paused")
        check_numbers(migration.key, ALIAS, visits=ROWS)
        if status == "paused":
            executor.resume(migration, ALIAS, AUTHOR, enqueue=False)
        end(migration, repetition)
        executor.reset(migration.key, ALIAS, AUTHOR)
    assert set(seen) <= {"applied", "paused"}
    table.count("pause against finish", ALIAS, REPETITIONS)


def test_cancel_against_resume(migration, chance):
    for repetition in range(1, REPETITIONS + 1):
        start(migration, ALIAS)
        claim_range(migration, ALIAS)
        executor.pause(migration.key, ALIAS, AUTHOR)
        cancelled, resumed = at_once(
            chance,
            lambda: executor.cancel(migration.key, ALIAS, AUTHOR),
            lambda: executor.resume(make(Visit), ALIAS, AUTHOR, enqueue=False),
        )
        assert not isinstance(cancelled, IllegalMove)
        assert not isinstance(resumed, IllegalMove) or resumed.status == "cancelled"
        assert get_status(migration) == "cancelled"
        work(migration, ALIAS)  # a worker that has not heard of it yet
        assert get_visits(ALIAS) == {repetition - 1}
        start(migration, ALIAS)
        end(migration, repetition)
        executor.reset(migration.key, ALIAS, AUTHOR)
    table.count("cancel against resume", ALIAS, REPETITIONS)


def test_reset_against_a_running_slice(migration, chance):
    is_whole = set()
    for repetition in range(1, REPETITIONS + 1):
        City.objects.using(ALIAS).update(visits=0)
        attempt_uuid = start(migration, ALIAS)
        shard = claim_range(migration, ALIAS)
        slow = make(Visit)
        slow.seconds = 0.002

        def stop() -> None:
            executor.pause(migration.key, ALIAS, AUTHOR)
            executor.reset(migration.key, ALIAS, AUTHOR)

        outcome, _ = at_once(chance, lambda shard=shard, slow=slow: Slice(shard, slow, ALIAS).run(), stop)
        assert outcome in ("lost", "stopped", "done"), outcome
        assert get_status(migration) == states.NOT_RUN
        assert not MigrationShard.objects.using(ALIAS).filter(attempt_uuid=attempt_uuid).exists()
        visited = City.objects.using(ALIAS).filter(visits=1).count()
        assert visited in (0, 4, 6), f"repetition {repetition}: a batch is whole or not at all"
        is_whole.add(bool(visited))
        City.objects.using(ALIAS).update(visits=0)
        start(migration, ALIAS)
        end(migration, 1)
        executor.reset(migration.key, ALIAS, AUTHOR)
    table.count("reset against a running slice", ALIAS, REPETITIONS)


def test_retry_against_a_late_task(chance):
    make_cities(ALIAS, ROWS)
    migration = make(OneIsBad)
    for repetition in range(1, REPETITIONS + 1):
        City.objects.using(ALIAS).update(visits=0)
        change(migration, is_mended=False)
        old = start(migration, ALIAS)
        assert work(migration, ALIAS).status == "failed"
        late = [shard.pk for shard in recorder.get_shards(old, ALIAS)]
        executor.restart(migration, ALIAS, AUTHOR, enqueue=False)
        City.objects.using(ALIAS).update(visits=0)
        assert work(migration, ALIAS).status == "failed"
        change(migration, is_mended=True)
        at_once(
            chance,
            lambda: executor.retry(migration, ALIAS, AUTHOR, enqueue=False),
            *(lambda pk=pk: tasks.run_shard(pk, ALIAS) for pk in late),
        )
        assert get_status(migration) == "running"
        assert not recorder.get_shards(old, ALIAS), f"repetition {repetition}"
        end(migration, 1)
        executor.reset(migration.key, ALIAS, AUTHOR)
    table.count("retry against a late task of the attempt before", ALIAS, REPETITIONS)
