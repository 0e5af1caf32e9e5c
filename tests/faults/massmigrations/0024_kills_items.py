from django.db.models import F

from massmigration import CustomMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Migration(CustomMigration):
    """Kill the worker at some items, when they are pulled or worked."""

    batch_size = 8
    on_error = "skip"

    def get_items(self, shard, cursor, db_alias):
        cities = City.objects.using(db_alias).filter(pk__gt=cursor or 0).order_by("pk")
        for key, name in cities.values_list("pk", "name"):
            die(name, "kills when pulled")
            yield key, [key, name]

    def operation(self, item, db_alias):
        key, name = item
        City.objects.using(db_alias).filter(pk=key).update(visits=F("visits") + 1)
        die(name, "kills when worked")
