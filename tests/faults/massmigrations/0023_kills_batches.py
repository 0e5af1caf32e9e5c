from django.db.models import F

from massmigration import BatchMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Migration(BatchMigration):
    """Kill the worker at batches that hold some rows."""

    batch_size = 8
    shard_count = 1
    on_error = "skip"

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, cities, db_alias):
        for name in cities.values_list("name", flat=True):
            die(name, "kills")
        cities.update(visits=F("visits") + 1)
