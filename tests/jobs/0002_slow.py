import os
import time

from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Visit every city slowly, so that there is time to send a signal."""

    operator_notes = "Takes its time."
    batch_size = 10
    shard_count = 8
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        if "MASSMIGRATION_TEST_QUICKLY" not in os.environ:
            time.sleep(0.01)
        city.visits += 1
