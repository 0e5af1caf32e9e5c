from django.db.models import CharField, ExpressionWrapper, F

from massmigration import MapperMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Heavy(CharField):
    """Takes too much memory when it is read."""

    def from_db_value(self, value, expression, connection):
        die(value, "kills when read")
        return value


class Migration(MapperMigration):
    """Kill the worker at some rows, when they are read or worked; the engine writes."""

    update_fields = ["visits"]
    batch_size = 8
    shard_count = 1
    on_error = "skip"

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).annotate(heavy=ExpressionWrapper(F("name"), output_field=Heavy()))

    def prepare(self, cities, db_alias):
        for city in cities:
            die(city.name, "kills in prepare")

    def operation(self, city, db_alias):
        die(city.name, "kills when worked")
        city.visits += 1
