"""G9: what the site writes while a migration runs is neither lost nor used stale."""

from __future__ import annotations

import pytest
from django.db import connections

from massmigration import MapperMigration
from tests.engine.support import in_threads, make, run
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class Lower(MapperMigration):
    """Writes the slug from the name; the site renames a city while its batch is in hand."""

    update_fields = ["slug"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.slug = city.name.lower()
        if city.name == "City 5":
            self.edit(db_alias, city.pk)

    def edit(self, db_alias, pk):
        rows = City.objects.using(db_alias).filter(pk=pk)
        in_threads(lambda: rows.update(name="Renamed", note="by the site"))


def make_cities(db_alias: str) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(20))


def needs_no_lock(db_alias: str, definition: type[Lower]) -> type[Lower]:
    """Return the definition without row locks: the edit inside the operation would wait for itself."""
    if connections[db_alias].vendor == "sqlite":
        return definition
    return type("Migration", (definition,), {"lock_rows": False})


def test_an_edited_row_keeps_the_edit_and_gets_the_right_value(db_alias):
    make_cities(db_alias)
    progress = run(needs_no_lock(db_alias, Lower), db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 20, 20)
    city = City.objects.using(db_alias).get(note="by the site")
    assert (city.name, city.slug) == ("Renamed", "renamed")


def test_a_row_that_is_edited_at_every_visit_is_locked_in_the_end(db_alias):
    class Migration(needs_no_lock(db_alias, Lower)):
        edits = 0

        def operation(self, city, db_alias):
            city.slug = city.name.lower()
            is_chosen = city.note != "" or city.name == "City 5"
            if is_chosen and not connections[db_alias].in_atomic_block:
                type(self).edits += 1
                rows = City.objects.using(db_alias).filter(pk=city.pk)
                name = f"Renamed {self.edits}"
                in_threads(lambda: rows.update(name=name, note="by the site"))

    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    city = City.objects.using(db_alias).get(note="by the site")
    assert Migration.edits == 3
    assert (city.name, city.slug) == ("Renamed 3", "renamed 3")


def test_overwrite_does_not_look(db_alias):
    class Migration(needs_no_lock(db_alias, Lower)):
        on_conflict = "overwrite"

    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    city = City.objects.using(db_alias).get(note="by the site")
    assert (city.name, city.slug) == ("Renamed", "city 5")


def test_a_row_that_is_deleted_meanwhile_is_left_out(db_alias):
    class Migration(needs_no_lock(db_alias, Lower)):
        def edit(self, db_alias, pk):
            in_threads(lambda: City.objects.using(db_alias).filter(pk=pk).delete())

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 19)
    assert all(city.slug == city.name.lower() for city in City.objects.using(db_alias))


@pytest.mark.needs_postgres
def test_a_locked_row_makes_the_site_wait_for_the_batch():
    import threading

    class Migration(Lower):
        edited = []
        thread = None

        def edit(self, db_alias, pk):
            def rename():
                rows = City.objects.using(db_alias).filter(pk=pk)
                rows.update(name="Renamed", note="by the site")
                self.edited.append(City.objects.using(db_alias).get(pk=pk).slug)
                connections.close_all()

            type(self).thread = threading.Thread(target=rename)
            self.thread.start()

    make_cities("postgres")
    migration = make(Migration)
    assert run(migration, "postgres").status == "applied"
    Migration.thread.join()
    city = City.objects.using("postgres").get(note="by the site")
    assert Migration.edited == ["city 5"]
    assert (city.name, city.slug) == ("Renamed", "city 5")
