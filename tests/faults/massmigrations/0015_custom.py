from django.db.models import F

from massmigration import CustomMigration
from tests.faults.traps import stumble
from tests.testapp.models import City


class Migration(CustomMigration):
    """Count visits; the shards are remainders."""

    batch_size = 4

    def get_shards(self, db_alias):
        return [{"remainder": number} for number in range(2)]

    def get_items(self, shard, cursor, db_alias):
        keys = City.objects.using(db_alias).order_by("pk").values_list("pk", "name")
        for key, name in keys.filter(pk__gt=cursor or 0):
            if key % 2 == shard["remainder"]:
                yield key, [key, name]

    def operation(self, item, db_alias):
        key, name = item
        stumble(name)
        City.objects.using(db_alias).filter(pk=key).update(visits=F("visits") + 1)
