from django.db.models import F

from massmigration import SimpleMigration
from tests.faults.traps import die
from tests.testapp.models import City


class Migration(SimpleMigration):
    """Kill the worker."""

    def operation(self, db_alias):
        City.objects.using(db_alias).update(visits=F("visits") + 1)
        die("kills", "kills")
