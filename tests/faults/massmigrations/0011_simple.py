from django.db.models import F

from massmigration import SimpleMigration
from tests.testapp.models import City


class Migration(SimpleMigration):
    """Count visits, all in one, by two statements."""

    def operation(self, db_alias):
        cities = City.objects.using(db_alias)
        half = cities.count() // 2
        keys = list(cities.order_by("pk").values_list("pk", flat=True)[:half])
        cities.filter(pk__in=keys).update(visits=F("visits") + 1)
        cities.exclude(pk__in=keys).update(visits=F("visits") + 1)
