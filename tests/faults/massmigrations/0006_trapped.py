from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.db.models.signals import post_save
from django.dispatch import receiver

from massmigration import MapperMigration
from massmigration.models import MigrationEvent, MigrationShard
from tests.faults.traps import spring
from tests.testapp.models import City

STATEMENTS = (
    ("rows written", 'UPDATE "testapp_city"', "SET"),
    ("cursor moved", 'UPDATE "massmigration_shard"', '"cursor" = '),
    ("shard taken", 'UPDATE "massmigration_shard"', '"fence" = '),
    ("shard made", "INSERT", '"massmigration_shard"'),
)


class Migration(MapperMigration):
    """Count visits, with a trap at every step."""

    update_fields = ["visits"]
    batch_size = 10
    shard_count = 3

    def get_queryset(self, db_alias):
        plan = MigrationShard.objects.using(db_alias).filter(kind=MigrationShard.PLAN, status=MigrationShard.RUNNING)
        if plan.exists():
            spring("planning")
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        spring("object")
        city.visits += 1

    def verify(self, db_alias):
        spring("verify")


@receiver(post_save, sender=MigrationEvent, dispatch_uid="trap")
def note_event(instance, using, **kwargs):
    spring(f"{instance.action}, before commit")
    transaction.on_commit(lambda: spring(f"{instance.action}, after commit"), using=using)


def execute(run, sql, params, many, context):
    result = run(sql, params, many, context)
    for name, beginning, part in STATEMENTS:
        if sql.startswith(beginning) and part in sql.partition(" WHERE ")[0]:
            spring(name)
    return result


@receiver(connection_created, dispatch_uid="trap")
def watch(connection, **kwargs):
    if execute not in connection.execute_wrappers:
        connection.execute_wrappers.append(execute)


for opened in connections.all(initialized_only=True):  # Django 6.1 looks at a database before it loads us
    watch(connection=opened)
