import time

from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """Keep on the instance what is read once per batch, as the documentation teaches."""

    batch_size = 20
    shard_count = 8
    update_fields = ["note"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def prepare(self, objects, db_alias):
        self.names = City.objects.using(db_alias).in_bulk([city.pk for city in objects])
        time.sleep(0.005)

    def operation(self, city, db_alias):
        time.sleep(0.0002)
        if city.pk in self.names:
            city.note = self.names[city.pk].name
