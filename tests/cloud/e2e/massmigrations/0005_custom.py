from massmigration import CustomMigration
from tests.cloud.app.models import Row
from tests.cloud.e2e import pace


class Migration(CustomMigration):
    """Count visits; the shards are remainders of the keys."""

    batch_size = 10
    queue_name = pace.get_queue("custom")

    def get_shards(self, db_alias):
        return [{"remainder": number} for number in range(4)]

    def get_items(self, shard, cursor, db_alias):
        rows = Row.objects.using(db_alias).filter(name="custom").order_by("pk")
        if cursor is not None:
            rows = rows.filter(pk__gt=cursor)
        for key in rows.values_list("pk", flat=True):
            if key % 4 == shard["remainder"]:
                yield key, key

    def operation(self, item, db_alias):
        pace.step("custom", item)
        row = Row.objects.using(db_alias).get(pk=item)
        row.visits += 1
        row.save(using=db_alias, force_update=True)
