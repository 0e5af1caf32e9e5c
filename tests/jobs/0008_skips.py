from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Go on behind the cities whose note is "bad"."""

    on_error = "skip"
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        if city.note == "bad":
            raise ValueError(f"{city.name} is bad")
        city.visits += 1
