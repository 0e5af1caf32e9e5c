"""Mistakes in querysets."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.query import ModelIterable

from tests.mistakes import Trial, mistake
from tests.mistakes.files import Visits
from tests.testapp.models import City


@mistake("sliced-queryset")
class Sliced(Visits):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)[:5]


@mistake("ordered-queryset")
def ordered(trial: Trial) -> str:
    class Migration(Visits):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).order_by("-name")

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("yields-fewer")
class YieldsFewer(Visits):
    class Iterable(ModelIterable):
        def __iter__(self):
            return (city for city in super().__iter__() if city.name != "city 5")

    def get_queryset(self, db_alias):
        rows = City.objects.using(db_alias).all()
        rows._iterable_class = self.Iterable
        return rows


@mistake("other-database")
class OtherDatabase(Visits):
    def get_queryset(self, db_alias):
        return City.objects.using(next(alias for alias in [*connections, DEFAULT_DB_ALIAS] if alias != db_alias))


@mistake("matches-nothing")
def match_nothing(trial: Trial) -> str:
    class Migration(Visits):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(name="citty 1")

    outcome = trial.run(Migration)
    assert trial.get_visits() == [0] * 10
    return outcome
