from django.db.models import F

from massmigration import BatchMigration
from tests.testapp.models import City


class Migration(BatchMigration):
    """Count visits, a statement for each batch."""

    batch_size = 4
    shard_count = 2

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(visits=F("visits") + 1)
