from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Write every name in capitals."""

    update_fields = ["name", "visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.name = city.name.upper()
        city.visits += 1
