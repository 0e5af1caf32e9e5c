from massmigration import MapperMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Migration(MapperMigration):
    """Kill the worker that verifies."""

    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1

    def verify(self, db_alias):
        die("kills", "kills")
