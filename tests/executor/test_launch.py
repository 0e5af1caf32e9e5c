"""The backend is launched after the commit; if it cannot be reached the record says so."""

from __future__ import annotations

import pytest
from django.db import transaction

from massmigration import executor, recorder
from massmigration.backends.base import BaseBackend
from massmigration.exceptions import BackendUnreachable
from tests.engine.support import AUTHOR, get_progress, make, work
from tests.executor.support import CountVisits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class DownBackend(BaseBackend):
    """A queue that cannot be reached until somebody mends it."""

    is_down = True
    has_workers = True

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        if self.is_down:
            raise ConnectionError("connection refused")


def test_an_unreachable_queue_fails_the_record_and_a_retry_goes_on(db_alias):
    class Migration(CountVisits):
        backend = f"{__name__}.DownBackend"

    make_cities(db_alias, 10)
    migration = make(Migration)
    with pytest.raises(BackendUnreachable, match="connection refused"):
        executor.start(migration, db_alias, AUTHOR)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.reason) == ("failed", "backend_unreachable")
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_in_a_requests_transaction_the_launch_waits_for_the_commit(db_alias):
    class Migration(CountVisits):
        backend = f"{__name__}.DownBackend"

    with transaction.atomic(using=db_alias):
        executor.start(make(Migration), db_alias, AUTHOR)
        assert recorder.get_record("testapp:0001_test", db_alias).status == "enqueued"
    record = recorder.get_record("testapp:0001_test", db_alias)
    assert (record.status, record.reason) == ("failed", "backend_unreachable")
    with transaction.atomic(using=db_alias):
        executor.retry(make(CountVisits), db_alias, AUTHOR, enqueue=False)
        transaction.set_rollback(True, using=db_alias)
    assert recorder.get_record("testapp:0001_test", db_alias).status == "failed"
