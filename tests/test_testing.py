"""What massmigration.testing gives to authors: running a migration within a test, and a queue in memory."""

from __future__ import annotations

import pytest
from django.db import transaction

from massmigration import api, states, testing
from massmigration.backends.base import RUN_SHARD
from massmigration.testing import MemoryQueueBackend, run_migration
from massmigration.testing.harness import BackendHarness
from tests.markdown import read
from tests.testapp.models import City

NAMES = "testapp:0001_names"


@pytest.fixture(autouse=True)
def jobs(settings):
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.jobs", "adminapp": None}


@pytest.fixture
def queue(settings):
    settings.MASSMIGRATION_BACKEND = "massmigration.testing.MemoryQueueBackend"
    MemoryQueueBackend.reset()
    yield MemoryQueueBackend
    MemoryQueueBackend.reset()


def test_its_names():
    assert testing.__all__ == ["BackendConformance", "MemoryQueueBackend", "run_migration"]


@pytest.mark.django_db
def test_a_migration_is_run_within_the_transaction_of_a_test():
    City.objects.create(name="aba")
    assert run_migration(NAMES).processed == 1
    assert City.objects.get().name == "ABA"


@pytest.mark.django_db
def test_a_migration_that_fails_fails_the_test():
    City.objects.create(name="aba", note="bad")
    with pytest.raises(AssertionError, match="testapp:0004_fails is failed: ValueError: aba is bad"):
        run_migration(("testapp", "0004_fails"))


@pytest.mark.django_db(transaction=True)
def test_the_queue_delivers_what_is_due_once(queue):
    City.objects.create(name="aba")
    api.start_migration(NAMES)
    while queue.deliver():
        pass
    assert api.get_progress(NAMES).status == states.APPLIED
    assert City.objects.get().visits == 1
    assert queue.deliver(hurry=True), "the watch, which is not due for a minute"
    assert not queue.waiting


@pytest.mark.django_db(transaction=True)
def test_a_task_that_raises_stays_on_the_queue(queue):
    queue(None, {}).enqueue(RUN_SHARD, {"no": "such argument"}, db_alias="default")
    for _ in range(2):
        with pytest.raises(TypeError):
            queue.deliver()
    assert len(queue.waiting) == 1


@pytest.mark.django_db(transaction=True)
def test_a_name_counts_once_and_only_after_the_commit(queue):
    with transaction.atomic():
        queue(None, {}).enqueue(RUN_SHARD, {}, db_alias="default", name="a")
        assert not queue.waiting
    for name in ("a", "b", "", ""):
        queue(None, {}).enqueue(RUN_SHARD, {}, db_alias="default", name=name)
    assert [message.name for message in queue.waiting] == ["a", "b", "", ""]


def test_what_authors_override_in_the_suite_is_documented():
    rows = read("backends.md").get_section("The conformance suite").rows
    documented = {row[0].strip("`").removesuffix("()") for row in rows}
    names = list(vars(BackendHarness))
    hooks = names[: names.index("setUp")]  # what stands above it in the class
    assert documented == {name for name in hooks if not name.startswith("_")}
