"""Mistakes in a file and in the attributes of its class."""

from __future__ import annotations

from massmigration import MapperMigration
from tests.mistakes import Trial, mistake
from tests.testapp.models import City


class Visits(MapperMigration):
    """Counts the visits of each city: right in itself, for mistakes to be added."""

    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


@mistake("broken-file")
def does_not_import(trial: Trial) -> str:
    return trial.go(trial.write("1 / 0"))


@mistake("unknown-dependency")
class UnknownDependency(Visits):
    dependencies = [("mistaken", "0001_mistakes")]


@mistake("misspelt-choice")
class MisspeltChoice(Visits):
    on_error = "ignore"


@mistake("unknown-alias")
class UnknownAlias(Visits):
    allowed_db_aliases = ["eu"]


@mistake("no-verdict")
class RaisingVerify(Visits):
    def verify(self, db_alias):
        raise LookupError("nothing to compare with")
