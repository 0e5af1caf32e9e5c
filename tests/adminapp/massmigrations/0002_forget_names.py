"""What the confirmation page warns of: a dependency, data that is lost, and a person who may not."""

from massmigration import BatchMigration
from tests.testapp.models import City


class Migration(BatchMigration):
    """Forget the names <of all> cities."""

    dependencies = [("adminapp", "0001_count_visits")]
    schema_dependencies = [("testapp", "0001_initial")]
    destructive = True

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).exclude(name="")

    def operation(self, queryset, db_alias):
        queryset.update(name="")

    def has_run_permission(self, user):
        return user.get_username() != "trainee"
