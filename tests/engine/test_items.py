"""Items of a CustomMigration: each has its own cursor, or the shard fails with a sentence; none is dropped."""

from __future__ import annotations

import pytest

from massmigration import CustomMigration, RetryLater, executor
from tests.engine.support import AUTHOR, claim_range, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

PER_PAGE = 3


class Pages(CustomMigration):
    """Seventy-five items whose cursor is the number of their page."""

    count = 75

    def get_items(self, shard, cursor, db_alias):
        for number in range(0 if cursor is None else (cursor + 1) * PER_PAGE, self.count):
            yield number // PER_PAGE, number

    def operation(self, item, db_alias):
        City.objects.using(db_alias).create(name=f"item {item}")


class Numbers(Pages):
    """The same items, each with a cursor of its own."""

    def get_items(self, shard, cursor, db_alias):
        for number in range(0 if cursor is None else cursor + 1, self.count):
            yield number, number


def get_items_done(db_alias: str) -> list[int]:
    return sorted(int(name.split()[1]) for name in City.objects.using(db_alias).values_list("name", flat=True))


def assert_is_refused(progress) -> None:
    assert progress.status == "failed"
    assert "does not move the cursor" in progress.error
    assert "a cursor that no other item of the shard has" in progress.error


@pytest.mark.parametrize("db_alias", ["default"])
@pytest.mark.parametrize("size", [1, 2, 3, 30, 100])
def test_items_that_share_a_cursor_fail_the_shard_wherever_the_batch_ends(db_alias, size):
    migration = make(type("Migration", (Pages,), {"batch_size": size}))
    assert_is_refused(run(migration, db_alias))
    # What is done is done up to the end of a page, so that a corrected definition can go on.
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert_is_refused(work(migration, db_alias))


@pytest.mark.parametrize("db_alias", ["default"])
@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("error", [RetryLater(0.01, "a quota"), ValueError("a page is broken")])
@pytest.mark.parametrize("position", [1, 2, 3])
def test_items_that_share_a_cursor_are_found_whatever_error_came_between_them(db_alias, size, error, position):
    class Migration(Pages):
        batch_size = size
        has_raised = False

        def get_items(self, shard, cursor, db_alias):
            for at, item in super().get_items(shard, cursor, db_alias):
                if item == position and not self.has_raised:
                    type(self).has_raised = True
                    raise error
                yield at, item

    progress = run(Migration, db_alias)
    assert_is_refused(progress)


@pytest.mark.parametrize("error", [RetryLater(0.01, "a quota"), ValueError("broken")])
@pytest.mark.parametrize("skips", [False, True])
def test_items_that_share_a_cursor_are_found_after_an_error_of_the_operation(db_alias, error, skips):
    class Migration(Pages):
        batch_size = 1
        on_error = "skip" if skips else "stop"
        has_raised = False

        def get_items(self, shard, cursor, db_alias):
            for at, item in super().get_items(shard, cursor, db_alias):
                yield max(0, at - 1), item  # the first page is the longest

        def operation(self, item, db_alias):
            if not self.has_raised:
                type(self).has_raised = True
                raise error
            super().operation(item, db_alias)

    assert_is_refused(run(Migration, db_alias))


def test_items_that_share_a_cursor_are_found_where_the_operation_saves_by_itself(db_alias):
    class Migration(Pages):
        atomic = False

        def operation(self, item, db_alias):
            if item == 1:
                raise ValueError("broken")
            super().operation(item, db_alias)

    assert_is_refused(run(Migration, db_alias))
    assert get_items_done(db_alias) == []


def test_a_shard_that_is_taken_up_again_finds_items_that_share_a_cursor(db_alias, settings):
    class Migration(Pages):
        """One item has a page of its own, then a page has two."""

        batch_size = 1

        def get_items(self, shard, cursor, db_alias):
            for at in range(0 if cursor is None else cursor + 1, 10):
                yield at, at
                if at == 5:
                    yield at, 100

    settings.MASSMIGRATION_SLICE_SECONDS = 0.001  # each visit makes one batch
    assert_is_refused(run(Migration, db_alias))
    assert get_items_done(db_alias) == [0, 1, 2, 3, 4]


def test_a_generator_that_begins_with_the_cursor_it_was_given_is_refused(db_alias):
    class Migration(Numbers):
        """It yields the item again that is done already."""

        batch_size = 10

        def get_items(self, shard, cursor, db_alias):
            for number in range(cursor or 0, self.count):
                yield number, number

    migration = make(Migration)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    type(shard).objects.using(db_alias).filter(pk=shard.pk).update(cursor="4", status="ready", lease_expires_at=None)
    assert_is_refused(work(migration, db_alias))
    assert get_items_done(db_alias) == []


def test_an_item_without_a_cursor_is_refused(db_alias):
    class Migration(Numbers):
        """None means the beginning: after a restart all items would be worked again."""

        def get_items(self, shard, cursor, db_alias):
            yield None, 0
            yield 1, 1

    assert_is_refused(run(Migration, db_alias))
    assert get_items_done(db_alias) == []


def test_failed_items_that_share_a_cursor_with_others_are_not_dropped_by_their_retry(db_alias):
    class Migration(Numbers):
        """The corrected code numbers its items otherwise, and badly."""

        on_error = "skip"
        is_broken = True

        def get_items(self, shard, cursor, db_alias):
            items = Numbers.get_items if self.is_broken else Pages.get_items
            yield from items(self, shard, cursor, db_alias)

        def operation(self, item, db_alias):
            if item in (5, 20) and self.is_broken:
                raise ValueError(item)
            super().operation(item, db_alias)

    migration = make(Migration)
    assert run(migration, db_alias).failed == 2
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert_is_refused(work(migration, db_alias))


@pytest.mark.parametrize("db_alias", ["default"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_what_was_pulled_before_a_rest_is_worked_first(db_alias, size):
    class Migration(Numbers):
        batch_size = size
        rests = 0

        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else cursor + 1, self.count):
                if number in (20, 40) and self.rests < number // 20:
                    type(self).rests += 1
                    raise RetryLater(0.01, "a quota")
                yield number, number

    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, Migration.rests) == ("applied", 75, 2)
    assert get_items_done(db_alias) == list(range(75))


def test_an_error_of_the_generator_leaves_what_came_before_it_done(db_alias):
    class Migration(Numbers):
        is_broken = True

        def get_items(self, shard, cursor, db_alias):
            for at, item in super().get_items(shard, cursor, db_alias):
                if item == 40 and self.is_broken:
                    raise ValueError("line 40 is broken")
                yield at, item

    migration = make(Migration)
    progress = run(migration, db_alias)
    assert progress.status == "failed"
    assert "line 40 is broken" in progress.error
    # The last one waits for its successor: the two might share a cursor.
    assert get_items_done(db_alias) == list(range(39))
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert get_items_done(db_alias) == list(range(75))
