"""Mistakes in what is written back."""

from __future__ import annotations

from massmigration import MapperMigration
from tests.mistakes import Trial, mistake
from tests.mistakes.files import Visits
from tests.testapp.models import City, Tag


@mistake("update-fields-string")
class UpdateFieldsString(Visits):
    update_fields = "visits"


@mistake("update-fields-unknown")
class UpdateFieldsUnknown(Visits):
    update_fields = ["visit"]


@mistake("sets-nothing")
class SetsNothing(Visits):
    def operation(self, city, db_alias):
        city.visit = city.visits + 1


@mistake("unsaved-related")
def set_an_unsaved_object(trial: Trial) -> str:
    class Migration(MapperMigration):
        update_fields = ["city"]

        def get_queryset(self, db_alias):
            return Tag.objects.using(db_alias)

        def operation(self, tag, db_alias):
            tag.city = City(name="nowhere")

    trial.add_cities()
    city = City.objects.using(trial.db_alias).earliest("pk")
    Tag(city=city, word="w").save(using=trial.db_alias)
    outcome = trial.run(Migration)
    assert Tag.objects.using(trial.db_alias).get().city == city
    assert "save() prohibited to prevent data loss due to unsaved related object 'city'" in trial.sentence
    return outcome
