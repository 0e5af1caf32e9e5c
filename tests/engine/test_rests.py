"""RetryLater: how long a shard may be asked to rest, and that what was pulled before is worked first."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from massmigration import CustomMigration, MapperMigration, RetryLater, states
from massmigration.models import MigrationFailure
from tests.engine.support import run
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

MONTH = 30 * 24 * 3600
MISTAKES = ["60", None, b"60", True, 1j, math.inf, math.nan, -0.001, 10**12, 10**400, MONTH + 1]


class Mapper(MapperMigration):
    update_fields = ["visits"]
    on_error = "skip"

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias, count):
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


@pytest.mark.parametrize("seconds", [0, 0.5, 60, Fraction(1, 3), Decimal(60), MONTH])
def test_seconds_from_nothing_to_thirty_days_are_fine(seconds):
    assert RetryLater(seconds).seconds == float(seconds)
    assert f"{float(seconds):g} seconds" in str(RetryLater(seconds))


@pytest.mark.parametrize("seconds", MISTAKES, ids=str)
@pytest.mark.parametrize("reason", ["", "the quota"])
def test_anything_else_is_refused_where_it_is_raised(seconds, reason):
    with pytest.raises((TypeError, ValueError), match=r"RetryLater takes .* seconds"):
        RetryLater(seconds, reason)


@pytest.mark.parametrize("seconds", ["60", 10**12], ids=str)
def test_a_wrong_rest_fails_like_an_error_of_the_operation(db_alias, seconds):
    class Migration(Mapper):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 7":
                raise RetryLater(seconds, "the quota")

    make_cities(db_alias, 20)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", states.FAILURES_OPEN, 1)
    assert City.objects.using(db_alias).filter(visits=1).count() == 19
    assert "RetryLater takes" in MigrationFailure.objects.using(db_alias).get().message


class Forgetful(RetryLater):
    """A subclass that sets nothing, or something wrong."""

    def __init__(self, seconds="unset"):
        if seconds != "unset":
            self.seconds = seconds


def test_a_subclass_that_sets_no_seconds_rests_for_a_moment(db_alias):
    class Migration(Mapper):
        asked = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if not self.asked:
                type(self).asked += 1
                raise Forgetful

    make_cities(db_alias, 3)
    assert run(Migration, db_alias).status == "applied"


def test_a_subclass_with_a_wrong_rest_ends_the_run_and_not_the_worker(db_alias):
    class Migration(Mapper):
        def operation(self, city, db_alias):
            raise Forgetful("60")

    make_cities(db_alias, 3)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason) == ("failed", states.OPERATION_ERROR)
    assert "RetryLater takes" in progress.error


def test_what_get_items_gave_before_it_asked_for_a_rest_is_worked_first(db_alias):
    class Migration(CustomMigration):
        budget, rests = 3, 0

        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else cursor + 1, 20):
                if self.budget == 0:
                    type(self).budget, type(self).rests = 3, self.rests + 1
                    raise RetryLater(0.01, "three requests at a time")
                type(self).budget -= 1
                yield number, f"City {number}"

        def operation(self, name, db_alias):
            City.objects.using(db_alias).create(name=name)

    progress = run(Migration, db_alias, should_stop=lambda: Migration.rests > 12)
    assert (progress.status, progress.processed) == ("applied", 20)
    assert City.objects.using(db_alias).count() == 20
    assert Migration.rests <= 11


def test_a_rest_of_get_items_is_kept_while_a_smaller_batch_is_worked(db_alias):
    """An object that fails makes the batches small: the generator has ended, and must not count as exhausted."""

    class Migration(CustomMigration):
        on_error = "skip"
        budget, rests = 5, 0

        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else cursor + 1, 12):
                if self.budget == 0:
                    type(self).budget, type(self).rests = 5, self.rests + 1
                    raise RetryLater(0.01, "five requests at a time")
                type(self).budget -= 1
                yield number, number

        def operation(self, number, db_alias):
            City.objects.using(db_alias).create(name=f"City {number}")
            if number == 2:
                raise ValueError("wrong")

    progress = run(Migration, db_alias, should_stop=lambda: Migration.rests > 30)
    assert (progress.status, progress.failed, progress.processed) == ("failed", 1, 11)
    assert City.objects.using(db_alias).count() == 11


def test_a_rest_before_the_first_item_rests(db_alias):
    class Migration(CustomMigration):
        rests = 0

        def get_items(self, shard, cursor, db_alias):
            if not self.rests:
                type(self).rests += 1
                raise RetryLater(0.01, "a token")
            yield 1, 1

        def operation(self, number, db_alias):
            City.objects.using(db_alias).create(name=f"City {number}")

    assert run(Migration, db_alias).status == "applied"
    assert City.objects.using(db_alias).count() == 1


def test_a_rest_after_each_single_item_ends_with_a_sentence(db_alias):
    """An item is worked once the cursor of the next one is known, so such a generator would rest for ever."""

    class Migration(CustomMigration):
        visits = 0

        def get_items(self, shard, cursor, db_alias):
            type(self).visits += 1
            yield self.visits, 1
            raise RetryLater(0, "one request at a time")

        def operation(self, number, db_alias):
            City.objects.using(db_alias).create(name=f"City {number}")

    progress = run(Migration, db_alias, should_stop=lambda: Migration.visits > 20)
    assert (progress.status, progress.reason) == ("failed", states.OPERATION_ERROR)
    assert "asked for a rest after a single item 9 times in a row" in progress.error
    assert Migration.visits == 9
