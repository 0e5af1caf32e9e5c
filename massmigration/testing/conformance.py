"""BackendConformance: what holds for every backend, as a class of tests to subclass."""

from __future__ import annotations

import random
import uuid
from contextlib import suppress
from datetime import timedelta

from django.db import OperationalError, transaction
from django.utils import timezone

from massmigration import api, states
from massmigration.exceptions import BackendUnreachable, IllegalMove
from massmigration.models import MigrationEvent, MigrationShard
from massmigration.tasks import watch
from massmigration.testing.harness import RESTS, SLOW, VISITS, BackendHarness
from massmigration.testing.visits import VISIT, get_visits


class BackendConformance(BackendHarness):
    """Tests that hold for every backend; subclass it, name the backend, and say how tasks are delivered.

    Attributes and methods to override are those at the top of ``BackendHarness``.
    """

    __test__ = False

    def test_a_migration_runs_to_its_end_and_visits_each_item_once(self) -> None:
        """The first thing that a backend is for."""
        api.start_migration(VISITS, self.db_alias, actor="conformance")
        self.wait_for_end()

    def test_a_start_within_a_transaction_waits_for_its_commit(self) -> None:
        """A request with a transaction around it starts nothing before its end."""
        with transaction.atomic(using=self.db_alias):
            api.start_migration(VISITS, self.db_alias, actor="conformance")
            self.be_quiet()
            committed_at = timezone.now()
        self.wait_for_end()
        assert self.get_first_visit() >= committed_at, "it began before the commit"

    def test_a_start_that_is_rolled_back_is_none(self) -> None:
        """Nothing of it is left, and the next one works."""
        with suppress(RolledBack), transaction.atomic(using=self.db_alias):
            api.start_migration(VISITS, self.db_alias, actor="conformance")
            raise RolledBack
        self.be_quiet()
        assert api.get_record(VISITS, self.db_alias) is None
        api.start_migration(VISITS, self.db_alias, actor="conformance")
        self.wait_for_end()

    def test_a_task_is_delivered_after_the_commit(self) -> None:
        """One that is delivered before it finds no shard, and is lost."""
        with transaction.atomic(using=self.db_alias):
            self.send(self.prepare())
            self.be_quiet()
            committed_at = timezone.now()
        self.wait_for_end()
        assert self.get_first_visit() >= committed_at, "it was delivered before the commit"

    def test_a_task_is_not_delivered_after_a_rollback(self) -> None:
        """Although the shard that it is about exists."""
        plan = self.prepare()
        with suppress(RolledBack), transaction.atomic(using=self.db_alias):
            self.send(plan)
            raise RolledBack
        self.be_quiet()
        assert self.get_status() == states.ENQUEUED, "it was delivered after a rollback"
        self.send(plan)
        self.wait_for_end()

    def test_a_delay_is_kept(self) -> None:
        """A task that comes too early is dropped, because its shard still rests."""
        plan, delay = self.prepare(), timedelta(seconds=1.5)
        not_before = timezone.now() + delay
        if not self.get_backend().supports_queue:
            MigrationShard.objects.using(self.db_alias).filter(pk=plan.pk).update(not_before=not_before)
        self.send(plan, delay_seconds=delay.total_seconds())
        self.wait_for_end()
        early = not_before - self.get_first_visit()
        assert early < timedelta(seconds=0.1), f"it came {early.total_seconds():.1f} seconds too early"

    def test_a_shard_that_rests_is_worked_again_later(self) -> None:
        """The operation asked for it, with RetryLater."""
        api.start_migration(RESTS, self.db_alias, actor="conformance")
        self.wait_for_end(RESTS)

    def test_the_same_name_twice_does_no_harm(self) -> None:
        """Whether the queue drops the second one or delivers it."""
        plan = self.prepare()
        for _ in range(2):
            self.send(plan, name="the same – 同じ name")
        self.wait_for_end()
        with suppress(IllegalMove):
            self.send(plan, name="the same – 同じ name")
        self.be_quiet()
        self.assert_applied()

    def test_arguments_arrive_as_they_were(self) -> None:
        """The shard's key has letters of many scripts; garbled, it would not be found."""
        plan = self.prepare()
        stored = MigrationShard.objects.using(self.db_alias)
        stored.filter(pk=plan.pk).delete()
        plan.pk = f"Zürich 東京 🚀 \\ ' \" % & ? <b> {uuid.uuid4().hex[:8]}"
        plan.save(using=self.db_alias, force_insert=True)
        self.send(plan)
        self.wait_for_end()

    def test_deliveries_that_come_twice_late_and_in_any_order_change_nothing(self) -> None:
        """Each shard is sent again and again, at random moments, and again in the end."""
        chance = random.Random(1)
        left = 40 if self.get_backend().supports_queue else 3
        api.start_migration(SLOW, self.db_alias, actor="conformance")
        while self.get_status(SLOW) in states.ACTIVE and left:
            self.send(chance.choice(self.get_shards()), delay_seconds=chance.choice([0, 0, 0.5, 1.5]))
            left -= 1
            for _ in range(chance.randint(0, 3)):
                self.deliver()
        self.wait_for_end(SLOW)
        events = [event.action for event in api.get_events(SLOW, self.db_alias, limit=1000) if event.action != VISIT]
        assert sorted(events) == ["begin", "finish", "start"]
        if self.get_backend().supports_queue:
            for shard in self.get_shards():
                self.send(shard)
        self.be_quiet()
        self.assert_applied(SLOW)
        assert MigrationEvent.objects.using(self.db_alias).filter(key=SLOW).count() == len(events) + 80

    def test_a_pause_stops_it_and_a_resume_goes_on(self) -> None:
        """It continues where it stopped: no item is visited again."""
        api.start_migration(SLOW, self.db_alias, actor="conformance")
        self.wait_until(lambda: get_visits(SLOW, self.db_alias), "The first visit")
        api.pause_migration(SLOW, self.db_alias, actor="conformance")
        self.wait_until(lambda: not self.is_worked(*self.get_shards()), "The end of the batch in hand")
        visits = get_visits(SLOW, self.db_alias)
        self.be_quiet()
        assert get_visits(SLOW, self.db_alias) == visits, "it went on although it was paused"
        assert self.get_status(SLOW) == states.PAUSED
        api.resume_migration(SLOW, self.db_alias, actor="conformance")
        self.wait_for_end(SLOW)

    def test_an_unreachable_queue_is_told_and_can_be_retried(self) -> None:
        """The record says why; nothing is lost."""
        told = ""
        with self.unreachable():
            try:
                api.start_migration(VISITS, self.db_alias, actor="conformance")
            except BackendUnreachable as error:
                told = str(error)
        assert VISITS in told, "The error does not say that the queue is unreachable."
        record = api.get_record(VISITS, self.db_alias)
        assert record is not None
        assert (record.status, record.reason) == (states.FAILED, states.BACKEND_UNREACHABLE)
        api.retry_migration(VISITS, self.db_alias, actor="conformance")
        self.wait_for_end()

    def test_a_task_that_got_lost_is_found(self) -> None:
        """By the watch; where the shard table is the queue, by recover."""
        with self.losing():
            record = api.start_migration(VISITS, self.db_alias, actor="conformance")
            self.be_quiet()
        assert self.get_status() == states.ENQUEUED, "the task was not lost"
        if not self.get_backend().supports_queue:
            api.recover_migration(VISITS, self.db_alias, actor="conformance")
            self.wait_for_end()
            return

        def look() -> bool:
            with suppress(OperationalError):  # a queue would deliver it again
                watch(VISITS, self.db_alias, str(record.attempt_uuid))
            return self.get_status() not in states.ACTIVE

        self.wait_until(look, f"The end of {VISITS}")
        self.assert_applied()


class RolledBack(Exception):
    """Ends a transaction of a test."""
