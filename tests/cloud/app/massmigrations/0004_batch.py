from django.db.models import F

from massmigration import BatchMigration
from tests.cloud.app.models import Row


class Migration(BatchMigration):
    """Count visits, batch by batch."""

    batch_size = 20
    shard_count = 4

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(visits=F("visits") + 1)
