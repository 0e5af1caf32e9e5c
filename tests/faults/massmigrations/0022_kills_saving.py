from massmigration import MapperMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Migration(MapperMigration):
    """Kill the worker at some rows, after they were saved."""

    batch_size = 8
    shard_count = 1
    on_error = "skip"

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1
        city.save(update_fields=["visits"])
        die(city.name, "kills")
