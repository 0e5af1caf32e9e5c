from django.db.models import F

from massmigration import SimpleMigration
from tests.faults.traps import dawdle
from tests.testapp.models import City


class Migration(SimpleMigration):
    """Count visits, all in one."""

    def operation(self, db_alias):
        for remainder in range(20):
            dawdle(0.1)
            City.objects.using(db_alias).extra(where=[f"id %% 20 = {remainder}"]).update(visits=F("visits") + 1)
