"""Mistakes in what an operation does."""

from __future__ import annotations

import time

from massmigration import CustomMigration, api
from massmigration.worker import work
from tests.engine.support import in_threads
from tests.mistakes import Trial, mistake
from tests.mistakes.files import Visits
from tests.testapp.models import City


@mistake("raises")
def raise_for_one(trial: Trial) -> str:
    class Migration(Visits):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "city 5":
                raise ValueError("has no river")

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert "ValueError: has no river (object 'city 5'" in trial.sentence
    return outcome


@mistake("changes-its-filter")
def change_the_filter(trial: Trial) -> str:
    class Migration(Visits):
        update_fields = ["visits", "flag"]
        batch_size = 3

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(flag=False)

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            city.flag = True

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("copies-ahead")
def copy_ahead(trial: Trial) -> str:
    class Migration(Visits):
        update_fields = ()

        def operation(self, city, db_alias):
            City.objects.using(db_alias).create(name="a copy")

    outcome = trial.run(Migration)
    assert "bounded = True" in trial.sentence
    return outcome


@mistake("shared-cursor")
def share_a_cursor(trial: Trial) -> str:
    class Migration(CustomMigration):
        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else 10 * (cursor + 1), 30):
                yield number // 10, number

        def operation(self, item, db_alias):
            City.objects.using(db_alias).create(name=str(item))

    return trial.run(Migration)


@mistake("keeps-on-self")
def keep_on_self(trial: Trial) -> str:
    class Migration(Visits):
        batch_size = 10
        shard_count = 4

        def prepare(self, objects, db_alias):
            self.wanted = {city.pk for city in objects}
            time.sleep(0.005)

        def operation(self, city, db_alias):
            time.sleep(0.0005)
            city.visits += city.pk in self.wanted

    trial.add_cities(400)
    key = trial.load(Migration)
    attempt_uuid = api.start_migration(key, trial.db_alias, enqueue=False).attempt_uuid
    in_threads(*[lambda: work(api.get_migration(key), trial.db_alias, attempt_uuid)] * 4)
    assert trial.get_visits() == [1] * 400
    return trial.work(key)
