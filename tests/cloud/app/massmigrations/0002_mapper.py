from massmigration import MapperMigration
from tests.cloud.app.models import Row


class Migration(MapperMigration):
    """Count visits of rows without a flag, and flag them; the engine writes."""

    update_fields = ["visits", "flag"]
    batch_size = 20
    shard_count = 4

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(flag=False)

    def operation(self, row, db_alias):
        row.visits += 1
        row.flag = True
