from massmigration import SimpleMigration
from tests.cloud.app.models import Row


class Migration(SimpleMigration):
    """Count visits, all in one."""

    def operation(self, db_alias):
        for row in Row.objects.using(db_alias).order_by("pk"):
            row.visits += 1
            row.save(using=db_alias)
