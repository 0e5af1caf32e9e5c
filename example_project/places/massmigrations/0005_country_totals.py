"""A SimpleMigration: one call in one transaction, for what a database does in a moment."""

from django.db.models import Count, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce
from massmigration import SimpleMigration
from places.models import City, Country


class Migration(SimpleMigration):
    """Count the cities of each country, and the people in them."""

    dependencies = [("places", "0004_import_countries")]

    def operation(self, db_alias):
        cities = City.objects.using(db_alias).filter(country_code=OuterRef("code")).values("country_code")
        count = cities.annotate(value=Count("pk")).values("value")
        population = cities.annotate(value=Sum("population")).values("value")
        Country.objects.using(db_alias).update(
            city_count=Coalesce(Subquery(count), 0), population=Coalesce(Subquery(population), 0)
        )
