"""A BatchMigration: one statement for some thousand rows, at the database's own speed."""

from django.db.models import Case, Value, When
from massmigration import BatchMigration
from places.models import City


class Migration(BatchMigration):
    """Sort the cities by their population, from metropolis to hamlet."""

    dependencies = [("places", "0001_city_slugs")]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(size="")

    def operation(self, queryset, db_alias):
        sizes = [When(population__gte=minimum, then=Value(size)) for size, minimum in City.MINIMUM_POPULATION.items()]
        queryset.update(size=Case(*sizes, default=Value(City.Size.UNKNOWN)))
