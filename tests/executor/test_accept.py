"""Failures that a person accepts: closed with a reason, passed by, and the run goes on to its end when none is open."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from massmigration import BatchMigration, CustomMigration, MapperMigration, SimpleMigration, executor, recorder
from massmigration.backends.base import BaseBackend
from massmigration.databases.transactions import run_write
from massmigration.engine import leases
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.slice import RESTING, Slice
from massmigration.exceptions import AcceptRefused, IllegalMove
from massmigration.executor.accept import Acceptance, accept
from massmigration.models import MigrationFailure, MigrationShard
from massmigration.signals import migration_resumed
from tests.engine.support import AUTHOR, change, get_progress, in_threads, make, run, start, work
from tests.testapp.models import City, CompositeRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

REASON = "The cities are gone"


class Visit(MapperMigration):
    update_fields = ["visits"]
    batch_size = 10
    shard_count = 1

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        if city.note == "bad":
            raise ValueError(f"{city.name} is bad")
        city.visits += 1


class Skip(Visit):
    on_error = "skip"
    max_failures = 1_000


class InBatches(BatchMigration):
    batch_size = 10
    shard_count = 1

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        if queryset.filter(note="bad").exists():
            raise ValueError("bad")
        for city in queryset:
            City.objects.using(db_alias).filter(pk=city.pk).update(visits=city.visits + 1)


class Items(CustomMigration):
    batch_size = 3

    def get_shards(self, db_alias):
        return ["one"]

    def get_items(self, shard, cursor, db_alias):
        cities = City.objects.using(db_alias).order_by("pk")
        for city in cities if cursor is None else cities.filter(pk__gt=cursor):
            yield city.pk, city.pk

    def operation(self, item, db_alias):
        city = City.objects.using(db_alias).get(pk=item)
        Visit.operation(self, city, db_alias)
        city.save(using=db_alias)


def make_cities(db_alias: str, *notes: str) -> None:
    City.objects.using(db_alias).bulk_create(
        City(name=f"City {number}", note=note) for number, note in enumerate(notes)
    )


def get_visits(db_alias: str) -> list[int]:
    return list(City.objects.using(db_alias).order_by("pk").values_list("visits", flat=True))


def get_failures(migration, db_alias: str) -> list[MigrationFailure]:
    record = recorder.get_record(migration.key, db_alias)
    return recorder.get_failures(record.attempt_uuid, db_alias)


def take(migration, db_alias: str, *failures: MigrationFailure, **options) -> Acceptance:
    ids = [failure.pk for failure in failures] or None
    return accept(migration, db_alias, AUTHOR, REASON, ids, enqueue=False, **options)


def get_actions(migration, db_alias: str) -> list[str]:
    return [event.action for event in recorder.get_events(migration.key, db_alias, 50)]


class TestAll:
    def test_the_run_goes_on_to_its_end_and_visits_nothing_again(self, db_alias):
        make_cities(db_alias, "", "bad", "", "bad", "")
        migration = make(Skip)
        assert run(migration, db_alias).reason == "failures_open"
        seen = []
        change(migration, operation=lambda city, db_alias: seen.append(city))
        done = take(migration, db_alias)
        assert (done.accepted_count, done.open_count, done.goes_on) == (2, 0, True)
        assert (done.record.status, done.record.reason, done.record.error) == ("running", "", "")
        progress = work(migration, db_alias)
        assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 3)
        assert progress.warning == "2 objects were accepted after an error, unmigrated."
        assert seen == []
        assert get_visits(db_alias) == [1, 0, 1, 0, 1]
        assert {failure.status for failure in get_failures(migration, db_alias)} == {"accepted"}

    def test_the_event_says_who_why_and_how_many(self, db_alias):
        make_cities(db_alias, "bad", "bad")
        migration = make(Skip)
        run(migration, db_alias)
        take(migration, db_alias)
        accepted, proceeded = recorder.get_events(migration.key, db_alias, 2)
        assert (accepted.action, accepted.actor, accepted.origin) == ("accept", "tester", "api")
        assert accepted.detail == f"2 objects: {REASON}"
        assert accepted.parameters == {"count": 2, "reason": REASON}
        assert (proceeded.action, proceeded.status, proceeded.actor) == ("proceed", "running", "tester")

    def test_verify_is_asked(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        change(migration, verify=lambda db_alias: "One city was not visited.")
        run(migration, db_alias)
        take(migration, db_alias)
        assert work(migration, db_alias).reason == "verify_failed"

    def test_a_run_with_too_many_failures_goes_on_from_its_cursors(self, db_alias):
        make_cities(db_alias, "bad", "bad", "bad", "", "")
        migration = make(Skip)
        change(migration, max_failures=1)
        assert run(migration, db_alias).reason == "max_failures"
        assert take(migration, db_alias).accepted_count == 2
        assert work(migration, db_alias).reason == "failures_open"
        assert take(migration, db_alias).accepted_count == 1
        assert work(migration, db_alias).status == "applied"
        assert get_visits(db_alias) == [0, 0, 0, 1, 1]

    def test_a_second_time_there_is_nothing_to_accept(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        take(migration, db_alias)
        done = take(migration, db_alias)
        assert (done.accepted_count, done.goes_on) == (0, False)
        assert get_actions(migration, db_alias).count("accept") == 1

    def test_what_was_accepted_by_a_process_that_died_goes_on(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        MigrationFailure.objects.using(db_alias).update(status="accepted")
        assert take(migration, db_alias).goes_on
        assert work(migration, db_alias).status == "applied"

    def test_that_it_goes_on_is_signalled(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        heard = []
        migration_resumed.connect(lambda **signal: heard.append(signal["actor"]), weak=False, dispatch_uid="heard")
        try:
            take(migration, db_alias)
        finally:
            migration_resumed.disconnect(dispatch_uid="heard")
        assert heard == ["tester"]


class TestSome:
    def test_others_stay_open_and_the_record_failed(self, db_alias):
        make_cities(db_alias, "bad", "", "bad")
        migration = make(Skip)
        run(migration, db_alias)
        first, second = get_failures(migration, db_alias)
        done = take(migration, db_alias, first)
        assert (done.accepted_count, done.open_count, done.goes_on) == (1, 1, False)
        assert (done.record.status, done.record.reason) == ("failed", "failures_open")
        assert take(migration, db_alias, second).goes_on
        assert work(migration, db_alias).status == "applied"

    def test_a_retry_visits_only_what_is_open_still(self, db_alias):
        make_cities(db_alias, "bad", "", "bad")
        migration = make(Skip)
        run(migration, db_alias)
        take(migration, db_alias, get_failures(migration, db_alias)[0])
        City.objects.using(db_alias).update(note="")
        executor.retry(migration, db_alias, AUTHOR, enqueue=False)
        assert work(migration, db_alias).status == "applied"
        assert get_visits(db_alias) == [0, 1, 1]
        assert [failure.status for failure in get_failures(migration, db_alias)] == ["accepted", "retried"]

    def test_the_beginning_of_a_key_is_enough(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        (failure,) = get_failures(migration, db_alias)
        assert accept(migration, db_alias, AUTHOR, REASON, [failure.pk[:8]], enqueue=False).accepted_count == 1

    def test_none_is_none(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        assert accept(migration, db_alias, AUTHOR, REASON, [], enqueue=False)[1:] == (0, 1, False)


@pytest.mark.parametrize("definition", [Visit, InBatches, Items])
class TestAnObjectThatStoppedTheRun:
    def test_the_run_goes_on_behind_it(self, db_alias, definition):
        make_cities(db_alias, "", "", "bad", "", "bad", "")
        migration = make(definition)
        for accepted in (1, 2):
            progress = run(migration, db_alias) if accepted == 1 else work(migration, db_alias)
            assert (progress.status, progress.reason, progress.failed) == ("failed", "operation_error", 1)
            assert take(migration, db_alias).goes_on
        progress = work(migration, db_alias)
        assert (progress.status, progress.processed) == ("applied", 4)
        assert get_visits(db_alias) == [1, 1, 0, 1, 0, 1]

    def test_also_when_it_failed_in_a_retry_of_what_was_skipped(self, db_alias, definition):
        make_cities(db_alias, "bad", "", "bad", "bad")
        migration = make(definition)
        change(migration, on_error="skip")
        run(migration, db_alias)
        City.objects.using(db_alias).filter(name="City 0").update(note="")
        City.objects.using(db_alias).filter(name="City 3").update(note="")
        change(migration, on_error="stop")
        executor.retry(migration, db_alias, AUTHOR, enqueue=False)
        assert work(migration, db_alias).reason == "operation_error"
        assert take(migration, db_alias).goes_on
        assert work(migration, db_alias).status == "applied"
        assert get_visits(db_alias) == [1, 1, 0, 1]


class TestWhatCannotBeAccepted:
    def test_a_whole_operation(self, db_alias):
        class Fails(SimpleMigration):
            def operation(self, db_alias):
                raise ValueError("no")

        migration = make(Fails)
        progress = run(migration, db_alias)
        assert (progress.failed, progress.acceptable) == (1, 0)
        assert "accept" not in progress.allowed_actions
        assert take(migration, db_alias)[1:] == (0, 1, False)
        with pytest.raises(AcceptRefused, match="failed as a whole, not at an object"):
            take(migration, db_alias, *get_failures(migration, db_alias))

    @pytest.mark.parametrize("reason", ["", " \n"])
    def test_without_a_reason(self, db_alias, reason):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        with pytest.raises(AcceptRefused, match="for a reason only"):
            accept(migration, db_alias, AUTHOR, reason, enqueue=False)
        assert get_progress(migration.key, db_alias, migration).failed == 1

    def test_what_is_not_there_or_not_open(self, db_alias):
        make_cities(db_alias, "bad", "bad")
        migration = make(Skip)
        run(migration, db_alias)
        first, _ = get_failures(migration, db_alias)
        with pytest.raises(AcceptRefused, match="has no failure 'x'"):
            accept(migration, db_alias, AUTHOR, REASON, [first.pk, "x"], enqueue=False)
        take(migration, db_alias, first)
        with pytest.raises(AcceptRefused, match="it was accepted already"):
            take(migration, db_alias, first)
        assert get_progress(migration.key, db_alias, migration).failed == 1

    def test_a_beginning_that_two_failures_have(self, db_alias):
        make_cities(db_alias, "bad", "bad")
        migration = make(Skip)
        run(migration, db_alias)
        for failure in get_failures(migration, db_alias):
            MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).update(id=f"same{failure.pk[4:]}")
        with pytest.raises(AcceptRefused, match="has 2 failures that begin with 'same'"):
            accept(migration, db_alias, AUTHOR, REASON, ["same"], enqueue=False)

    @pytest.mark.parametrize("action", ["cancel", "reset"])
    def test_in_a_run_that_is_over(self, db_alias, action):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        getattr(executor, action)(migration.key, db_alias, AUTHOR)
        with pytest.raises(IllegalMove, match="so it cannot have failures accepted"):
            take(migration, db_alias)

    def test_that_a_worker_failed_for_what_is_no_objects_fault(self, db_alias):
        make_cities(db_alias, "bad", "")
        migration = make(Skip)
        run(migration, db_alias)
        MigrationShard.objects.using(db_alias).filter(kind="range").update(status="failed")
        record = recorder.get_record(migration.key, db_alias)
        type(record).objects.using(db_alias).update(reason="operation_error")
        done = take(migration, db_alias)
        assert (done.accepted_count, done.goes_on, done.record.status) == (1, False, "failed")


class TestWhileItRuns:
    def test_failures_are_closed_and_the_run_ends_applied(self, db_alias):
        make_cities(db_alias, "bad", "bad", *[""] * 30)
        migration = make(Skip)
        start(migration, db_alias)
        taken = []

        def look() -> None:
            progress = get_progress(migration.key, db_alias, migration)
            if progress.status == "running" and progress.acceptable == 2:
                taken.append(take(migration, db_alias))

        assert work(migration, db_alias, on_progress=look).status == "applied"
        assert [(done.accepted_count, done.goes_on, done.record.status) for done in taken] == [(2, False, "running")]
        assert get_visits(db_alias) == [0, 0, *[1] * 30]

    def test_paused_it_stays_paused(self, db_alias):
        make_cities(db_alias, "bad", *[""] * 30)
        migration = make(Skip)
        start(migration, db_alias)
        work(
            migration,
            db_alias,
            should_stop=lambda: get_progress(migration.key, db_alias, migration).failed,
        )
        executor.pause(migration.key, db_alias, AUTHOR)
        assert take(migration, db_alias).record.status == "paused"
        executor.resume(migration, db_alias, AUTHOR, enqueue=False)
        assert work(migration, db_alias).status == "applied"

    def test_the_last_one_in_the_moment_in_which_the_run_is_about_to_fail(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        attempt_uuid = start(migration, db_alias)
        work(migration, db_alias, should_stop=lambda: make_finish_if_due(migration, db_alias, attempt_uuid))
        shard = recorder.get_shards(attempt_uuid, db_alias)[-1]
        assert shard.kind == MigrationShard.FINISH
        assert leases.claim(shard, migration, db_alias, "worker")
        finish = Slice(shard, migration, db_alias)
        fail = finish._fail

        def accept_before(*args):
            take(migration, db_alias)
            return fail(*args)

        finish._fail = accept_before  # the worker has counted one open failure by then
        assert finish.run() == RESTING
        assert get_progress(migration.key, db_alias, migration).status == "running"
        assert work(migration, db_alias).status == "applied"

    @pytest.mark.parametrize("round_number", range(5))
    def test_against_the_end_of_the_run_nothing_sticks(self, db_alias, round_number):
        make_cities(db_alias, "bad", *[""] * 15)
        migration = make(Skip)
        start(migration, db_alias)

        def take_soon() -> None:
            while not get_progress(migration.key, db_alias, migration).acceptable:
                pass
            take(migration, db_alias)

        in_threads(lambda: work(migration, db_alias), take_soon)
        assert work(migration, db_alias).status == "applied"


class TestTwoPersons:
    def test_of_two_accepts_one_counts(self, db_alias):
        make_cities(db_alias, *["bad"] * 5)
        migration = make(Skip)
        run(migration, db_alias)
        results = in_threads(lambda: take(migration, db_alias), lambda: take(migration, db_alias))
        assert sorted(done.accepted_count for done in results) == [0, 5]
        assert sorted(done.goes_on for done in results) == [False, True]
        assert get_actions(migration, db_alias).count("accept") == 1

    def test_an_accept_against_a_retry_one_wins(self, db_alias):
        make_cities(db_alias, *["bad"] * 5)
        migration = make(Skip)
        run(migration, db_alias)

        def retry() -> str:
            try:
                executor.retry(migration, db_alias, AUTHOR, enqueue=False)
            except IllegalMove:
                return "refused"
            return "retried"

        done, outcome = in_threads(lambda: take(migration, db_alias), retry)
        assert (done.accepted_count, outcome) in [(5, "refused"), (0, "retried")]
        statuses = {failure.status for failure in get_failures(migration, db_alias)}
        assert statuses == ({"accepted"} if done.accepted_count else {"retried"})

    def test_a_transaction_that_is_rolled_back_accepts_nothing(self, db_alias):
        make_cities(db_alias, "bad")
        migration = make(Skip)
        run(migration, db_alias)
        with transaction.atomic(using=db_alias):
            run_write(db_alias, lambda: take(migration, db_alias))
            transaction.set_rollback(True, using=db_alias)
        assert get_progress(migration.key, db_alias, migration).status == "failed"
        assert get_progress(migration.key, db_alias, migration).failed == 1


class UntilEmpty(Skip):
    until_empty = True

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(visits=0)


class TestATableThatIsGoneOverUntilItIsEmpty:
    def test_accepted_rows_are_not_waited_for(self, db_alias):
        make_cities(db_alias, "bad", "", "bad")
        migration = make(UntilEmpty)
        run(migration, db_alias)
        take(migration, db_alias)
        progress = work(migration, db_alias)
        assert progress.status == "applied"
        assert {shard.pass_number for shard in progress.shard_rows} == {1}

    def test_accepted_rows_of_several_key_fields_are_counted_in_any_order(self, db_alias):
        class Migration(UntilEmpty):
            def get_queryset(self, db_alias):
                return CompositeRow.objects.using(db_alias).filter(visits=0)

            def operation(self, row, db_alias):
                if row.number % 3:
                    raise ValueError("bad")
                row.visits += 1

        rows = (CompositeRow(tenant=f"tenant {number % 5}", number=number) for number in range(40))
        CompositeRow.objects.using(db_alias).bulk_create(rows)
        migration = make(Migration)
        run(migration, db_alias)
        for failure in get_failures(migration, db_alias):  # as workers of several shards store them: in no order
            moment = timezone.now() + timedelta(seconds=int(json.loads(failure.object_key)[1]) * 7 % 40)
            MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).update(failed_at=moment)
        take(migration, db_alias)
        progress = work(migration, db_alias)
        assert progress.status == "applied"
        assert {shard.pass_number for shard in progress.shard_rows} == {1}

    @pytest.mark.parametrize("on_error", ["skip", "stop"])
    def test_another_pass_goes_by_those_that_fail_again(self, db_alias, on_error):
        make_cities(db_alias, "bad", "")
        migration = make(UntilEmpty)
        run(migration, db_alias)
        change(migration, on_error=on_error)
        make_cities(db_alias, "")
        take(migration, db_alias)
        progress = work(migration, db_alias)
        assert (progress.status, progress.failed) == ("applied", 0)
        assert {shard.pass_number for shard in progress.shard_rows} == {1, 2}
        assert get_visits(db_alias) == [0, 1, 1]
        assert [failure.status for failure in get_failures(migration, db_alias)] == ["accepted"]


class Backend(BaseBackend):
    """A queue that keeps what it was given."""

    has_workers = True
    tasks: list[tuple[str, dict]] = []

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        Backend.tasks.append((task, arguments))


def test_a_queue_gets_the_last_step(db_alias):
    make_cities(db_alias, "bad")
    migration = make(Skip)
    run(migration, db_alias)
    migration.backend = f"{__name__}.Backend"
    Backend.tasks.clear()
    assert accept(migration, db_alias, AUTHOR, REASON).goes_on
    shards = [arguments["shard_id"] for _, arguments in Backend.tasks if "shard_id" in arguments]
    assert len(shards) == 1
    assert "-finish-" in shards[0]


def test_a_queue_that_is_down_fails_the_record_and_a_retry_goes_on(db_alias):
    make_cities(db_alias, "bad")
    migration = make(Skip)
    run(migration, db_alias)
    migration.backend = f"{__name__}.Down"
    with pytest.raises(Exception, match="no queue"):
        accept(migration, db_alias, AUTHOR, REASON)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.reason, progress.failed) == ("failed", "backend_unreachable", 0)
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == [0]


class Down(Backend):
    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        raise OSError("no queue")
