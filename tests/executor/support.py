"""What the tests of the actions have in common."""

from __future__ import annotations

from massmigration import MapperMigration, executor
from massmigration.executor.accept import accept
from tests.engine.support import AUTHOR
from tests.testapp.models import City


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 20

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def make_cities(db_alias: str, count: int = 100) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def act(action: str, migration: MapperMigration, db_alias: str) -> None:
    if action in ("pause", "cancel", "reset"):
        getattr(executor, action)(migration.key, db_alias, AUTHOR)
    elif action == "fake":
        executor.fake(migration, db_alias, AUTHOR)
    elif action == "accept":
        accept(migration, db_alias, AUTHOR, "nothing has failed", enqueue=False)
    else:
        getattr(executor, action)(migration, db_alias, AUTHOR, enqueue=False)
