from massmigration import SimpleMigration
from tests.cloud.app.models import Row
from tests.cloud.e2e import pace


class Migration(SimpleMigration):
    """Count visits, all in one."""

    queue_name = pace.get_queue("simple")

    def operation(self, db_alias):
        rows = list(Row.objects.using(db_alias).filter(name="simple").order_by("pk"))
        for number, row in enumerate(rows):
            if number == len(rows) // 2:
                pace.halt("middle of simple")
            pace.step("simple", row.pk)
            row.visits += 1
            row.save(using=db_alias, force_update=True)
