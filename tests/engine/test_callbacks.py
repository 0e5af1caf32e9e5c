"""What an operation does besides setting fields belongs to its object: it is done with it, or not at all."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import TestCase

from massmigration import MapperMigration, RetryLater
from tests.engine.support import in_threads, run
from tests.testapp.models import AuditLog, City, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class Mails(MapperMigration):
    """Sends a mail for each city, after the commit."""

    update_fields = ["slug"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.slug = "new"
        transaction.on_commit(lambda: self.send(city, db_alias), using=db_alias)

    def send(self, city, db_alias):
        raise NotImplementedError


def make_cities(db_alias, count=20):
    City.objects.using(db_alias).bulk_create(City(name=f"c{number}") for number in range(count))


def is_written(db_alias, pk):
    """Look from another connection, which sees what is committed only."""
    (slug,) = in_threads(lambda: City.objects.using(db_alias).get(pk=pk).slug)
    return slug == "new"


@pytest.mark.parametrize("lock_rows", [True, False])
def test_callbacks_are_called_once_the_row_is_written(db_alias, lock_rows):
    sent = []

    class Migration(Mails):
        def send(self, city, db_alias):
            sent.append((city.name, is_written(db_alias, city.pk)))

    Migration.lock_rows = lock_rows
    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    assert sent == [(f"c{number}", True) for number in range(20)]


@pytest.mark.parametrize("lock_rows", [True, False])
def test_nothing_is_sent_for_rows_that_are_not_written(db_alias, lock_rows):
    sent = []

    class Migration(Mails):
        on_error = "skip"

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "c7":
                raise ValueError("no")

        def send(self, city, db_alias):
            sent.append(city.name)

    Migration.lock_rows = lock_rows
    make_cities(db_alias)
    assert run(Migration, db_alias).status == "failed"
    assert sent == [f"c{number}" for number in range(20) if number != 7]


def test_rows_that_the_site_changed_meanwhile_send_once(db_alias):
    sent, edited = [], []

    class Migration(Mails):
        lock_rows = False

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "c7" and not edited:
                edited.append(city)
                rows = City.objects.using(db_alias).filter(pk=city.pk)
                in_threads(lambda: rows.update(note="by the site"))

        def send(self, city, db_alias):
            sent.append(city.name)

    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    assert sent == [f"c{number}" for number in range(20)]


def test_callbacks_of_the_authors_own_transactions(db_alias):
    sent = []

    class Migration(Mails):
        def operation(self, city, db_alias):
            try:
                with transaction.atomic(using=db_alias):
                    super().operation(city, db_alias)
                    if int(city.name[1:]) % 2:
                        raise ValueError("rolled back by the operation itself")
            except ValueError:
                pass

        def send(self, city, db_alias):
            sent.append((city.name, is_written(db_alias, city.pk)))

    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    assert sent == [(f"c{number}", True) for number in range(0, 20, 2)]


def test_a_callback_that_raises_does_not_undo_its_batch(db_alias):
    class Migration(Mails):
        def send(self, city, db_alias):
            raise ValueError("no mail server")

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 20, 20)


def test_a_callback_has_to_be_callable(db_alias):
    class Migration(Mails):
        def operation(self, city, db_alias):
            transaction.on_commit("send", using=db_alias)

    make_cities(db_alias)
    assert "callable" in run(Migration, db_alias).error


class Rests(Mails):
    """One object writes elsewhere, and asks for a rest before it is done."""

    update_fields = ["slug", "visits"]
    rests = 0

    def operation(self, city, db_alias):
        super().operation(city, db_alias)
        city.visits += 1
        AuditLog(message=city.name).save(using=db_alias)
        if city.name == "c7" and type(self).rests < 2:
            type(self).rests += 1
            raise RetryLater(0, "the quota")


@pytest.mark.parametrize("lock_rows", [True, False])
def test_nothing_of_an_object_that_rests_is_kept(db_alias, lock_rows):
    sent = []

    class Migration(Rests):
        def send(self, city, db_alias):
            sent.append(city.name)

    Migration.lock_rows = lock_rows
    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, progress.changed, Migration.rests) == ("applied", 20, 20, 2)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
    assert sent == [f"c{number}" for number in range(20)]
    if lock_rows and db_alias == "postgres":  # where the operation is called in the transaction
        logged = AuditLog.objects.using(db_alias).order_by("pk").values_list("message", flat=True)
        assert sorted(logged) == sorted(sent)


def test_what_came_before_a_rest_is_not_done_again_if_the_object_wrote_nothing(db_alias):
    calls = []

    class Migration(Mails):
        def operation(self, city, db_alias):
            calls.append(city.name)
            City.objects.using(db_alias).filter(name="c1").exists()
            if city.name == "c7" and calls.count("c7") == 1:
                raise RetryLater(0, "the quota")
            city.slug = "new"

    make_cities(db_alias)
    assert run(Migration, db_alias).status == "applied"
    assert calls == [f"c{number}" for number in (*range(8), *range(7, 20))]


@pytest.mark.parametrize(
    ("db_alias", "names"),
    [
        ("default", []),
        *(pytest.param("postgres", names, marks=pytest.mark.needs_postgres) for names in (["visits"], [])),
    ],
)
def test_an_operation_that_may_do_few_calls_in_a_while_comes_to_its_end(db_alias, names):
    """As with a quota: each rest allows for ten calls, and a call that is rolled back counts."""

    class Migration(MapperMigration):
        update_fields = names
        batch_size = 40
        calls = 0
        rests = 0

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            AuditLog(message="asks").save(using=db_alias)
            cls = type(self)
            if cls.calls == 10:
                cls.calls = 0
                cls.rests += 1
                assert cls.rests < 60, "nothing is ever committed"
                raise RetryLater(0, "the quota")
            cls.calls += 1
            city.visits += 1
            if not names:
                city.save(using=db_alias)

    make_cities(db_alias, 40)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 40)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


class TestInAnAuthorsTest(TestCase):
    databases = {"default"}

    def test_callbacks_can_be_captured(self):
        sent = []

        class Migration(Mails):
            on_error = "skip"

            def operation(self, city, db_alias):
                super().operation(city, db_alias)
                if city.name == "c7":
                    raise ValueError("no")

            def send(self, city, db_alias):
                sent.append(city.name)

        make_cities("default")
        with self.captureOnCommitCallbacks(execute=True):
            run(Migration, "default")
        assert sent == [f"c{number}" for number in range(20) if number != 7]


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("lock_rows", [True, False])
def test_what_an_operation_writes_besides_its_object_is_written_once(db_alias, lock_rows, swallows):
    """Its batch is repeated for the object that fails; outside of the transaction that would be done twice."""

    class Writes(MapperMigration):
        update_fields = ["visits"]
        on_error = "skip"
        batch_size = 10

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            try:
                with transaction.atomic(using=db_alias):
                    Tag.objects.using(db_alias).create(city_id=city.pk, word="x")
            except Exception:
                if not swallows:
                    raise
            if city.pk == 7:
                raise ValueError
            city.visits += 1

    City.objects.using(db_alias).bulk_create(City(pk=number) for number in range(1, 31))
    progress = run(type("Migration", (Writes,), {"lock_rows": lock_rows}), db_alias)
    assert (progress.reason, progress.failed) == ("failures_open", 1)
    written = sorted(Tag.objects.using(db_alias).values_list("city_id", flat=True))
    assert written == [number for number in range(1, 31) if number != 7]
    assert City.objects.using(db_alias).filter(visits=1).count() == 29
