from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Fail in another language."""

    operator_notes = "Zürich – 東京"
    update_fields = ["name"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        raise ValueError("Zürich – 東京")
