from django.db.models import F

from massmigration import BatchMigration
from tests.cloud.app.models import Row
from tests.cloud.e2e import pace


class Migration(BatchMigration):
    """Count visits, batch by batch."""

    batch_size = 10
    shard_count = 4
    queue_name = pace.get_queue("batch")

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias).filter(name="batch")

    def operation(self, queryset, db_alias):
        keys = sorted(queryset.values_list("pk", flat=True))
        queryset.update(visits=F("visits") + 1)
        for key in keys:  # afterwards: who is killed here has changed the rows already
            pace.step("batch", key)
