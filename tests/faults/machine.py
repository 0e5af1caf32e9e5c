"""A migration on a queue, and all that persons, the queue and deaths may do to it, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from massmigration import api, executor, recorder, states
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder import Author
from tests.faults import traps
from tests.faults.invariants import check_end, check_numbers
from tests.faults.queues import ListBackend
from tests.faults.support import make_cities
from tests.testapp.models import City

ALIAS = "default"
ROWS = 12
AUTHOR = Author("machine", "api")
KEYS = ("testapp:0012_mapper", "testapp:0013_saves", "testapp:0014_batch", "testapp:0015_custom")

ACTIONS: dict[str, Any] = {
    "start": executor.start,
    "resume": executor.resume,
    "retry": executor.retry,
    "restart": executor.restart,
    "recover": executor.recover,
}
STOPS: dict[str, Any] = {"pause": executor.pause, "cancel": executor.cancel, "reset": executor.reset}


class Machine(RuleBasedStateMachine):
    """Each rule is something that may happen at any moment; each invariant is looked at after each of them."""

    @initialize(key=st.sampled_from(KEYS), bad=st.booleans(), is_planned=st.sampled_from([True, True, False]))
    def begin(self, key: str, bad: bool, is_planned: bool) -> None:
        """Begin with an empty database, or with a run that is planned."""
        for model in (MigrationRecord, MigrationShard, MigrationFailure, MigrationEvent, City):
            model._default_manager.using(ALIAS).all().delete()
        ListBackend.empty()
        traps.mend()
        make_cities(ALIAS, ROWS)
        self.key, self.migration = key, api.get_migration(key)
        self.attempt: Any = None
        self.before: dict[int, int] = {}
        self.shards: dict[str, tuple[str, Any]] = {}
        if bad and key != "testapp:0014_batch":  # which does not see single rows
            traps.spoil(f"City {ROWS // 2}")
        if is_planned:
            self.go("start")
            ListBackend.deliver(ListBackend.waiting.pop(0))

    def _get_record(self) -> MigrationRecord | None:
        return recorder.get_record(self.key, ALIAS)

    def _get_status(self) -> str:
        record = self._get_record()
        return record.status if record is not None else states.NOT_RUN

    def _do(self, action: str, call: Any) -> None:
        """Do what a person may do, and see that it is refused where it has to be."""
        before, refusal = self._get_status(), None
        try:
            call()
        except IllegalMove as error:
            refusal = error
        if refusal is not None:
            assert not states.is_legal(action, before), refusal
            assert refusal.status == before == self._get_status()
            return
        assert states.is_legal(action, before)
        target = states.MOVES[action].target
        assert self._get_status() == (before if target is None else target)

    @rule(action=st.sampled_from(sorted(ACTIONS)))
    def go(self, action: str) -> None:
        """Start, resume, retry, restart or recover."""
        self._do(action, lambda: ACTIONS[action](self.migration, ALIAS, AUTHOR))

    @rule(action=st.sampled_from(sorted(STOPS)))
    def stop(self, action: str) -> None:
        """Pause, cancel or reset."""
        self._do(action, lambda: STOPS[action](self.key, ALIAS, AUTHOR))

    def _take(self, number: int) -> tuple[str, str] | None:
        """Return one of the tasks; if none waits, those are enqueued first that a watch would find."""
        if not ListBackend.waiting and self._get_status() in states.ACTIVE:
            self._let_leases_run_out()
            self.go("recover")
        return ListBackend.waiting.pop(number % len(ListBackend.waiting)) if ListBackend.waiting else None

    @rule(number=st.integers(0, 9), times=st.sampled_from([1, 1, 1, 2, 0]), late=st.booleans())
    def deliver(self, number: int, times: int, late: bool) -> None:
        """Deliver any of the tasks, once, twice or never, and perhaps one of long ago."""
        task = self._take(number)
        for _ in range(times if task else 0):
            ListBackend.deliver(task)
        if late and ListBackend.delivered:
            ListBackend.deliver(ListBackend.delivered[number % len(ListBackend.delivered)])

    @rule(number=st.integers(0, 9), name=st.sampled_from(traps.PLACES), calls=st.integers(1, 200))
    def crash(self, number: int, name: str, calls: int) -> None:
        """Deliver a task to a worker that is gone after so many calls of the engine's functions."""
        task = self._take(number)
        if task and traps.vanish_after(calls % 5 + 1 if name else calls, lambda: ListBackend.deliver(task), name):
            ListBackend.waiting.append(task)  # nobody has acknowledged it

    @rule()
    def let_time_go_by(self) -> None:
        """Let leases run out, and mend the operation."""
        self._let_leases_run_out()
        traps.mend()

    def _let_leases_run_out(self) -> None:
        MigrationShard.objects.using(ALIAS).filter(lease_expires_at__isnull=False).update(lease_expires_at=traps.PAST)

    @invariant()
    def the_rules_hold(self) -> None:
        """Look at all that has to be so at any moment."""
        self._see_that_numbers_add_up()
        self._see_that_no_shard_is_lost()
        self._see_that_there_is_a_way_out()

    def _see_that_numbers_add_up(self) -> None:
        """Processed are the rows visited in this attempt, each at most once."""
        record = self._get_record()
        attempt = record.attempt_uuid if record is not None else None
        visits = dict(City.objects.using(ALIAS).values_list("pk", "visits"))
        if attempt != self.attempt or not self.before:
            self.attempt, self.before, self.shards = attempt, visits, {}
        in_attempt = [visits[pk] - self.before[pk] for pk in visits]
        assert set(in_attempt) <= {0, 1}, "a row was visited twice within an attempt"
        if attempt is not None:
            check_numbers(self.key, ALIAS, visits=sum(in_attempt))
        if record is not None and record.status == states.APPLIED and not record.faked:
            assert set(in_attempt) == {1}
            check_end(self.key, ALIAS, visits=ROWS)

    def _see_that_no_shard_is_lost(self) -> None:
        """Shards stay, and are done once and for all."""
        record = self._get_record()
        stored = {shard.pk: shard for shard in recorder.get_shards(record and record.attempt_uuid, ALIAS)}
        for pk, (status, fence) in self.shards.items():
            assert pk in stored, f"{pk} is lost"
            assert stored[pk].fence >= fence
            assert status != MigrationShard.DONE or stored[pk].status == MigrationShard.DONE
        self.shards = {pk: (shard.status, shard.fence) for pk, shard in stored.items()}

    def _see_that_there_is_a_way_out(self) -> None:
        """A status is a legal one, and a person can do something in it."""
        status = self._get_status()
        assert status in (states.NOT_RUN, *states.STORED)
        assert states.get_legal_actions(status)

    def teardown(self) -> None:
        """Whatever has happened: with the operation mended, the way out leads to APPLIED."""
        if not hasattr(self, "key"):
            return
        traps.mend()
        for _ in range(6):
            status = self._get_status()
            if status == states.APPLIED:
                break
            self._go_out(status)
        assert self._get_status() == states.APPLIED, api.get_progress(self.key, ALIAS)

    def _go_out(self, status: str) -> None:
        """Do what is to be done in a status, and deliver what comes of it."""
        ListBackend.waiting.clear()
        self._let_leases_run_out()
        way = {states.PAUSED: "resume", states.FAILED: "retry"}.get(status, "start")
        way = "recover" if status in states.ACTIVE else way
        ACTIONS[way](self.migration, ALIAS, AUTHOR)
        self.the_rules_hold()
        while tasks := [task for task in ListBackend.waiting if task[0].endswith("run_shard")]:
            ListBackend.waiting.remove(tasks[0])
            ListBackend.deliver(tasks[0])
            self.the_rules_hold()
