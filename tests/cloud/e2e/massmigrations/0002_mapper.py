from massmigration import MapperMigration
from tests.cloud.app.models import Row
from tests.cloud.e2e import pace


class Migration(MapperMigration):
    """Count visits of rows without a flag, and flag them; the engine writes."""

    update_fields = ["visits", "flag"]
    batch_size = 10
    shard_count = 4
    queue_name = pace.get_queue("mapper")

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(name="mapper", flag=False)

    def operation(self, row, db_alias):
        pace.step("mapper", row.pk)
        row.visits += 1
        row.flag = True
