"""G4: APPLIED only when it is so; rows behind the cursors are caught; verify() is asked."""

from __future__ import annotations

import pytest

from massmigration import MapperMigration, SimpleMigration, executor, recorder
from massmigration.engine.passes import MAX_PASSES
from massmigration.models import MigrationEvent, MigrationShard
from tests.engine.support import AUTHOR, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def make_cities(db_alias: str, count: int, **fields: object) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}", **fields) for number in range(count))


class SetFlag(MapperMigration):
    update_fields = ["flag", "visits"]
    batch_size = 50

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, city, db_alias):
        city.flag = True
        city.visits += 1


def test_an_operation_that_changes_its_own_filter_leaves_nothing(db_alias):
    class Migration(SetFlag):
        batch_size = None

    make_cities(db_alias, 5_000)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 5_000, 5_000)
    assert set(City.objects.using(db_alias).values_list("flag", "visits")) == {(True, 1)}


def test_rows_that_come_in_behind_the_cursor_are_caught_by_another_pass(db_alias):
    class Migration(SetFlag):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 199":
                late = City.objects.using(db_alias).filter(name__in=["City 3", "City 5"])
                if late.filter(visits=1).exists():
                    # the site sets the old value again, in rows that were done long ago
                    self.undo(late)

        def undo(self, late):
            late.update(flag=False)

    make_cities(db_alias, 200)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert not City.objects.using(db_alias).filter(flag=False).exists()
    assert progress.processed == 202
    assert MigrationShard.objects.using(db_alias).filter(pass_number=2, kind="finish").exists()


def test_rows_that_still_match_are_not_visited_again_and_a_warning_says_so(db_alias):
    class Migration(MapperMigration):
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits__lt=5)

        def operation(self, city, db_alias):
            city.visits += 1

    make_cities(db_alias, 150)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
    assert "still match the queryset" in progress.warning


def test_until_empty_goes_on_until_it_is_empty(db_alias):
    class Migration(MapperMigration):
        update_fields = ["visits"]
        until_empty = True

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits__lt=3)

        def operation(self, city, db_alias):
            city.visits += 1

    make_cities(db_alias, 20)
    assert run(Migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {3}


def test_until_empty_fails_if_it_never_is(db_alias):
    class Migration(MapperMigration):
        update_fields = ["visits"]
        until_empty = True

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1

    make_cities(db_alias, 20)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason) == ("failed", "not_empty")
    assert progress.processed == 20 * MAX_PASSES


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (False, "verify() returned False."),
        ("3 rows are wrong.", "3 rows are wrong."),
        (ValueError("no"), "verify() raised ValueError: no"),
    ],
)
def test_a_failed_verify_gates_applied_and_a_retry_asks_again(db_alias, verdict, error):
    class Migration(SetFlag):
        answer = verdict

        def verify(self, db_alias):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    make_cities(db_alias, 10)
    migration = make(Migration)
    progress = run(migration, db_alias)
    assert (progress.status, progress.reason, progress.error) == ("failed", "verify_failed", error)
    assert not (progress.percent or 0) > 99
    Migration.answer = None
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.error) == ("applied", None)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_a_run_that_changed_nothing_says_so(db_alias):
    class Migration(MapperMigration):
        update_fields = ["slug"]

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.slugg = "misspelt"

    make_cities(db_alias, 10)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 10, 0)
    assert "No row was changed" in progress.warning
    assert "No row was changed" in MigrationEvent.objects.using(db_alias).get(action="finish").detail


def test_an_empty_table_is_nothing_to_warn_of(db_alias):
    progress = run(SetFlag, db_alias)
    assert (progress.status, progress.processed, progress.total) == ("applied", 0, 0)
    assert progress.warning == ""


def test_a_filter_that_finds_nothing_is_told(db_alias):
    make_cities(db_alias, 1)
    migration = make(SetFlag)
    run(migration, db_alias)
    executor.restart(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 0)
    assert progress.warning == (
        "Nothing was done: no row of testapp.City matched. If there should have been some, look at get_queryset()."
    )
    assert recorder.get_events(migration.key, db_alias, 1)[0].detail == progress.warning


def test_totals_are_kept_when_the_shards_are_gone(db_alias):
    make_cities(db_alias, 70)
    migration = make(SetFlag)
    run(migration, db_alias)
    MigrationShard.objects.using(db_alias).all().delete()
    progress = work(migration, db_alias)
    assert (progress.processed, progress.changed, progress.percent) == (70, 70, 100)


def test_every_change_of_state_has_an_author(db_alias):
    make_cities(db_alias, 10)
    migration = make(SetFlag)
    start(migration, db_alias)
    executor.pause(migration.key, db_alias, AUTHOR)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    work(migration, db_alias)
    executor.reset(migration.key, db_alias, AUTHOR)
    events = recorder.get_events(migration.key, db_alias, 50)
    assert [event.action for event in events] == ["start", "pause", "resume", "finish", "reset"]
    assert all(event.actor and event.origin for event in events)
    assert events[0].actor == "tester"
    assert events[3].origin == "worker"


def test_a_simple_migration_needs_no_rows(db_alias):
    class Migration(SimpleMigration):
        def operation(self, db_alias):
            return None

    assert run(Migration, db_alias).status == "applied"
