"""Rows in several tables are locked in the order in which Django's ``save()`` writes them, so that no one deadlocks."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections, models, transaction
from django.db.models import F

from massmigration import BatchMigration, MapperMigration
from massmigration.databases.locking import lock_rows
from tests.engine.support import run
from tests.engine.tables import Extra, make_tables
from tests.testapp.models import Child, Parent

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.needs_postgres,
]

ALIAS = "postgres"


class Base(Extra):
    visits = models.IntegerField(default=0)


class Coded(Base):
    """Its link to its parent is not its key."""

    code = models.IntegerField(primary_key=True)
    base = models.OneToOneField(Base, models.CASCADE, parent_link=True)


class Leaf(Coded):
    words = models.IntegerField(default=0)


class LeafProxy(Leaf):
    class Meta(Extra.Meta):
        proxy = True


class Saving(MapperMigration):
    batch_size = 10

    def get_queryset(self, db_alias):
        return Child.objects.using(db_alias)

    def operation(self, child, db_alias):
        child.visits += 1
        child.child_visits += 1
        child.save()


class Listed(Saving):
    update_fields = ["child_visits", "visits"]

    def operation(self, child, db_alias):
        child.visits += 1
        child.child_visits += 1


class Compared(Listed):
    lock_rows = False


class Overwriting(Compared):
    on_conflict = "overwrite"


class Batched(BatchMigration):
    batch_size = 10

    def get_queryset(self, db_alias):
        return Child.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(child_visits=F("child_visits") + 1)


class SlowSave(threading.Thread):
    """What ``Model.save()`` does on the site, with a moment between the tables: first the parent's row."""

    def __init__(self, pk):
        super().__init__()
        self.pk, self.error = pk, None
        self.has_begun = threading.Event()

    def run(self):
        try:
            with transaction.atomic(using=ALIAS):
                connections[ALIAS].cursor().execute("SET LOCAL deadlock_timeout = '100ms'")
                child = Child.objects.using(ALIAS).get(pk=self.pk)
                Parent.objects.using(ALIAS).filter(pk=self.pk).update(title="by the site")
                self.has_begun.set()
                time.sleep(0.5)
                child.detail = "by the site"
                child.save(update_fields=["detail"])
        except Exception as error:
            self.error = error
        finally:
            connections[ALIAS].close()


@pytest.mark.parametrize("definition", [Saving, Listed, Compared, Overwriting, Batched])
def test_a_save_of_the_site_meets_no_deadlock(definition):
    children = [Child.objects.using(ALIAS).create(title=str(number)) for number in range(10)]
    site = SlowSave(children[5].pk)
    site.start()
    assert site.has_begun.wait(10)
    progress = run(definition, ALIAS)
    site.join()
    assert site.error is None
    assert (progress.status, progress.failed) == ("applied", 0)
    assert set(Child.objects.using(ALIAS).values_list("child_visits", flat=True)) == {1}
    saved = Child.objects.using(ALIAS).get(pk=site.pk)
    assert (saved.title, saved.detail) == ("by the site", "by the site")


@pytest.mark.parametrize("model", [Leaf, LeafProxy])
def test_each_table_of_a_row_is_locked_whatever_its_key(model):
    with make_tables(ALIAS, Base, Coded, Leaf):
        Base.objects.using(ALIAS).bulk_create(Base() for _ in range(5))
        for number in range(1, 4):
            Leaf.objects.using(ALIAS).create(code=number)
        leaf = Leaf.objects.using(ALIAS).get(code=2)
        with transaction.atomic(using=ALIAS):
            assert lock_rows(model, [1, 2, 77], ALIAS) == [1, 2]
            locked = []

            def look():
                with transaction.atomic(using=ALIAS):
                    for table, pk in ((Base, leaf.base_id), (Coded, 2), (Leaf, 2)):
                        free = table._base_manager.using(ALIAS).select_for_update(of=("self",), skip_locked=True)
                        locked.append(not list(free.filter(pk=pk).values_list("pk")))
                    others = Base.objects.using(ALIAS).select_for_update(skip_locked=True)
                    locked.append(len(others))
                connections[ALIAS].close()

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert locked == [True, True, True, 6]
