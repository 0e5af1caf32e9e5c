"""Small enough to be run for real by a click."""

from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Count a visit of every city."""

    operator_notes = "Takes a moment."
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).all()

    def operation(self, city, db_alias):
        city.visits += 1
