from django.db.models import F

from massmigration import CustomMigration
from tests.faults.traps import dawdle
from tests.testapp.models import City


class Migration(CustomMigration):
    """Count visits; the shards are remainders."""

    batch_size = 10

    def get_shards(self, db_alias):
        return [{"remainder": number} for number in range(6)]

    def get_items(self, shard, cursor, db_alias):
        keys = City.objects.using(db_alias).order_by("pk").values_list("pk", flat=True)
        for key in keys.filter(pk__gt=cursor or 0):
            if key % 6 == shard["remainder"]:
                yield key, key

    def operation(self, item, db_alias):
        dawdle()
        City.objects.using(db_alias).filter(pk=item).update(visits=F("visits") + 1)
