from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Change nothing, which is worth a warning."""

    update_fields = ["note"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        pass
