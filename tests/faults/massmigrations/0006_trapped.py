from django.db import transaction
from django.db.backends.signals import connection_created
from django.db.models.signals import post_save
from django.dispatch import receiver

from massmigration import MapperMigration
from massmigration.models import MigrationEvent, MigrationShard
from tests.faults.traps import spring
from tests.testapp.models import City


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


@receiver(connection_created, dispatch_uid="trap")
def watch(connection, **kwargs):
    def execute(run, sql, params, many, context):
        is_shard = sql.startswith('UPDATE "massmigration_shard"')
        is_rows = sql.startswith('UPDATE "testapp_city"')
        made = sql.startswith("INSERT") and '"massmigration_shard"' in sql
        result = run(sql, params, many, context)
        if is_shard:
            spring("shard updated")
        if is_rows:
            spring("rows written")
        if made:
            spring("shard made")
        return result

    if execute not in connection.execute_wrappers:
        connection.execute_wrappers.append(execute)
