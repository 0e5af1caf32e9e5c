"""Mistakes with lists that are given to the author's code, and with items that are no rows."""

from __future__ import annotations

from massmigration import CustomMigration, MapperMigration, RetryLater
from tests.mistakes import Trial, mistake
from tests.testapp.models import City


class VisitItems(CustomMigration):
    """Visits the cities by their names, five at a time."""

    batch_size = 5

    def get_items(self, shard, cursor, db_alias):
        for number in range(1, 11):
            if number > (cursor or 0):
                yield number, f"city {number}"

    def operation(self, name, db_alias):
        city = City.objects.using(db_alias).get(name=name)
        city.visits += 1
        city.save(using=db_alias)


@mistake("sorts-objects")
def sort_objects(trial: Trial) -> str:
    class Migration(MapperMigration):
        atomic = False
        batch_size = 4
        shard_count = 1
        has_rested = False

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def prepare(self, objects, db_alias):
            objects.sort(key=lambda city: -city.pk)

        def operation(self, city, db_alias):
            if city.name in ("city 2", "city 3") and not self.has_rested:
                type(self).has_rested = True
                raise RetryLater(0, "a moment")
            city.visits += 1
            city.save(using=db_alias)

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("empties-items")
def empty_items(trial: Trial) -> str:
    class Migration(VisitItems):
        def operation_many(self, items, db_alias):
            while items:
                self.operation(items.pop(), db_alias)

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("changes-shard")
def change_shard(trial: Trial) -> str:
    class Migration(VisitItems):
        def get_shards(self, db_alias):
            return [{"names": [f"city {number}" for number in range(1, 11)]}]

        def get_total(self, shard, db_alias):
            total = 0
            while shard["names"]:
                total += bool(shard["names"].pop())
            return total

        def get_items(self, shard, cursor, db_alias):
            number = 0
            while shard["names"]:
                number += 1
                name = shard["names"].pop(0)
                if number > (cursor or 0):
                    yield number, name

        tries = 0

        def operation(self, name, db_alias):
            type(self).tries += 1
            if self.tries == 7:
                raise TimeoutError
            super().operation(name, db_alias)

        transient_errors = TimeoutError

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("shards-string")
class ShardsString(VisitItems):
    def get_shards(self, db_alias):
        return "a.csv"


@mistake("yields-nothing")
class YieldsNothing(VisitItems):
    def get_items(self, shard, cursor, db_alias):
        return iter(())


@mistake("rests-in-items")
def rest_in_items(trial: Trial) -> str:
    class Migration(VisitItems):
        has_rested = False

        def get_items(self, shard, cursor, db_alias):
            for number, name in super().get_items(shard, cursor, db_alias):
                if number == 8 and not self.has_rested:
                    type(self).has_rested = True
                    raise RetryLater(0, "a moment")
                yield number, name

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome
