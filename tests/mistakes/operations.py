"""Mistakes in what an operation does."""

from __future__ import annotations

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
