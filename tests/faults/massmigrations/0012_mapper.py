from massmigration import MapperMigration
from tests.faults.traps import stumble
from tests.testapp.models import City


class Migration(MapperMigration):
    """Count visits; the engine writes."""

    update_fields = ["visits"]
    batch_size = 4
    shard_count = 2

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        stumble(city.name)
        city.visits += 1
