"""Mistakes in what an operation does."""

from __future__ import annotations

import sys
import time

import pytest
from django.db import transaction

from massmigration import CustomMigration, RetryLater, api
from massmigration.exceptions import MassMigrationError
from massmigration.worker import work
from tests.engine.support import in_threads
from tests.mistakes import Trial, mistake
from tests.mistakes.files import Visits
from tests.testapp.models import City, SparseInt


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


@mistake("exits")
def exit_at_one(trial: Trial) -> str:
    class Migration(Visits):
        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "city 5":
                sys.exit(0)

    trial.add_cities()
    key = trial.load(Migration)
    api.start_migration(key, trial.db_alias, enqueue=False)
    for _ in range(6):
        with pytest.raises(SystemExit):
            trial.work(key)
    outcome = trial.work(key)
    assert trial.get_visits() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert "6 workers in a row were lost at the object with key" in trial.sentence
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


@mistake("rests-forever")
def rest_forever(trial: Trial) -> str:
    class Migration(Visits):
        def operation(self, city, db_alias):
            raise RetryLater(float("inf"), "the end of time")

    outcome = trial.run(Migration)
    assert trial.get_visits() == [0] * 10
    return outcome


@mistake("mails-on-commit")
def mail_on_commit(trial: Trial) -> str:
    mails: list[tuple[str, int]] = []

    class Migration(Visits):
        shard_count = 1

        def operation(self, city, db_alias):
            if city.name == "city 5":
                raise ValueError("has no river")
            super().operation(city, db_alias)
            transaction.on_commit(lambda: self.mail(city, db_alias), using=db_alias)

        def mail(self, city, db_alias):
            mails.append((city.name, City.objects.using(db_alias).get(pk=city.pk).visits))

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert mails == [(f"city {number}", 1) for number in range(1, 5)]
    return outcome


@mistake("deploys-while-paused")
def deploy_while_paused(trial: Trial) -> str:
    class Changed(Visits):
        def get_queryset(self, db_alias):
            return SparseInt.objects.using(db_alias)

    trial.add_cities()
    key = trial.load(Visits)
    attempt_uuid = api.start_migration(key, trial.db_alias, enqueue=False).attempt_uuid
    looks = iter([False, False, True])
    work(api.get_migration(key), trial.db_alias, attempt_uuid, should_stop=lambda: next(looks, True))
    api.pause_migration(key, trial.db_alias)
    trial.load(Changed)
    try:
        api.resume_migration(key, trial.db_alias, enqueue=False)
    except MassMigrationError as refusal:
        trial.sentence = str(refusal)
        return "refused"
    return trial.work(key)
