from massmigration import MapperMigration
from tests.cloud.app.models import Row
from tests.cloud.e2e import pace


class Migration(MapperMigration):
    """Count visits; the operation saves."""

    batch_size = 10
    shard_count = 4
    queue_name = pace.get_queue("saves")

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(name="saves")

    def operation(self, row, db_alias):
        pace.step("saves", row.pk)
        row.visits += 1
        row.save(using=db_alias, force_update=True)
