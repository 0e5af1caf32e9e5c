import os
import time
from pathlib import Path

from massmigration import SimpleMigration
from tests.testapp.models import City


class Migration(SimpleMigration):
    """Take a minute in one single transaction if there is a city called "long"."""

    def operation(self, db_alias):
        if City.objects.using(db_alias).filter(name="long").exists():
            City.objects.using(db_alias).update(visits=1)
            Path(os.environ["MASSMIGRATION_TEST_BEGUN"]).touch()
            time.sleep(60)
