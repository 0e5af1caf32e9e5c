from massmigration import MapperMigration
from tests.cloud.app.models import Row


class Migration(MapperMigration):
    """Count visits; the operation saves."""

    batch_size = 20
    shard_count = 4

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias)

    def operation(self, row, db_alias):
        row.visits += 1
        row.save(using=db_alias, force_update=True)
