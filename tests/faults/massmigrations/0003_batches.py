from django.db.models import F

from massmigration import BatchMigration
from tests.faults.traps import dawdle
from tests.testapp.models import City


class Migration(BatchMigration):
    """Count visits, a statement for each batch."""

    batch_size = 10
    shard_count = 6

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        dawdle(0.05)
        queryset.update(visits=F("visits") + 1)
        dawdle(0.05)
