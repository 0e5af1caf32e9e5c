"""Mistakes in a file and in the attributes of its class."""

from __future__ import annotations

from massmigration import BatchMigration, MapperMigration
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


@mistake("attribute-type")
class AttributeType(Visits):
    atomic = "no"


@mistake("aliases-string")
def name_aliases_in_a_string(trial: Trial) -> str:
    class Migration(Visits):
        allowed_db_aliases = f"{trial.db_alias} and more"

    return trial.run(Migration)


@mistake("schema-dependencies-pair")
class SchemaDependenciesPair(Visits):
    schema_dependencies = ("testapp", "0001_initial")


@mistake("transient-errors-class")
def transient_errors_class(trial: Trial) -> str:
    class Migration(Visits):
        transient_errors = TimeoutError
        tries = 0

        def operation(self, city, db_alias):
            type(self).tries += 1
            if self.tries == 5:
                raise TimeoutError
            super().operation(city, db_alias)

    outcome = trial.run(Migration)
    assert trial.get_visits() == [1] * 10
    return outcome


@mistake("transient-errors-name")
class TransientErrorsName(Visits):
    transient_errors = ("TimeoutError",)


@mistake("async-operation")
class AsyncOperation(Visits):
    async def operation(self, city, db_alias):  # type: ignore[override]
        super().operation(city, db_alias)


@mistake("generator-operation")
class GeneratorOperation(Visits):
    def operation(self, city, db_alias):
        yield super().operation(city, db_alias)


@mistake("returns-coroutine")
def return_a_coroutine(trial: Trial) -> str:
    class Migration(Visits):
        def operation(self, city, db_alias):
            return self.visit(city)

        async def visit(self, city):
            city.visits += 1

    outcome = trial.run(Migration)
    assert trial.get_visits() == [0] * 10
    return outcome


@mistake("wrong-signature")
class WrongSignature(Visits):
    def operation(self, city):  # type: ignore[override]
        city.visits += 1


@mistake("not-a-method")
class NotAMethod(Visits):
    verify = True


@mistake("misspelt-attribute")
class MisspeltAttribute(Visits):
    batchsize = 5


@mistake("attribute-of-other-type")
class AttributeOfOtherType(BatchMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(visits=1)


@mistake("mutable-class-attribute")
class MutableClassAttribute(Visits):
    names = {}

    def prepare(self, objects, db_alias):
        self.names.update((city.pk, city.name) for city in objects)


@mistake("no-verdict")
class RaisingVerify(Visits):
    def verify(self, db_alias):
        raise LookupError("nothing to compare with")
