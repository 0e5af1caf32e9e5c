from massmigration import BatchMigration
from tests.testapp.models import City


class Migration(BatchMigration):
    """Set the flag of all cities."""

    dependencies = [("testapp", "0002_slow")]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, queryset, db_alias):
        queryset.update(flag=True)
