"""What all backends have in common: their questions, in the present form and in that of older backends, and checks."""

from __future__ import annotations

import inspect

import pytest
from django.core import checks

from massmigration import recorder, worker
from massmigration.backends.base import BaseBackend, get_backend, has_queue
from massmigration.backends.cloudtasks import CloudTasksBackend
from massmigration.backends.local import LocalBackend
from massmigration.checks import check_backends
from massmigration.definitions.base import BaseMigration
from massmigration.testing import MemoryQueueBackend
from massmigration.watch import enqueue_watch
from tests.engine.support import make, start


class Custom(BaseBackend):
    """A backend that remembers its tasks."""

    tasks: list[str] = []

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        self.tasks.append(task)

    def check(self):
        return [checks.Warning("The queue is cold.", id="site.W001")]


class OldWithout(Custom):
    has_workers = False


class OldWith(Custom):
    has_workers = True


class Asked(Custom):
    """Its queue delivers to this process, where only a command works."""

    is_deployed = False

    @property
    def has_workers(self):  # type: ignore[override]  # a site that asks mypy says so as well
        return self.is_deployed


class AskedWithoutQueue(Asked):
    supports_queue = False


class Assigned(Custom):
    """Answers for each migration."""

    def __init__(self, queue_name, params):
        super().__init__(queue_name, params)
        self.has_workers = False


class Heir(OldWithout):
    """Has the answer of its parent."""


ANSWERS = [
    (Custom, True, True),
    (OldWith, True, True),
    (OldWithout, False, False),
    (Heir, False, False),
    (Assigned, False, True),
    (Asked, False, True),
    (AskedWithoutQueue, False, False),
    (LocalBackend, False, False),
    (MemoryQueueBackend, True, True),
    (CloudTasksBackend, True, True),
]


def make_migration(backend: type[BaseBackend]) -> BaseMigration:
    """Return a migration that runs on a backend."""
    path = f"{backend.__module__}.{backend.__qualname__}"
    return make(type("Migration", (BaseMigration,), {"backend": path, "launch": lambda self, db_alias: None}))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("backend", "has_workers", "supports_queue"), ANSWERS)
def test_each_form_of_has_workers_is_understood(backend, has_workers, supports_queue):
    """A command works by itself unless there are workers; a run is watched, and patient, if there is a queue."""
    migration = make_migration(backend)
    assert get_backend(migration).has_workers is has_workers
    assert worker.works_elsewhere(migration) is has_workers
    assert has_queue(migration) is supports_queue
    if issubclass(backend, Custom):
        attempt = recorder.get_attempt(start(migration, "default"), "default")
        assert attempt is not None
        Custom.tasks.clear()
        assert enqueue_watch(get_backend(migration), migration.key, "default", attempt) is supports_queue
        assert bool(Custom.tasks) is supports_queue


def test_the_answer_is_asked_for_each_time(monkeypatch):
    migration = make_migration(Asked)
    monkeypatch.setattr(Asked, "is_deployed", True)
    assert worker.works_elsewhere(migration)


def test_a_custom_backend_checks_the_site(settings):
    settings.MASSMIGRATION_BACKEND = f"{__name__}.Custom"
    assert [message.id for message in check_backends(None)] == ["site.W001"]
    settings.MASSMIGRATION_BACKEND = "massmigration.backends.local.LocalBackend"
    assert check_backends(None) == []


def test_each_capability_is_a_question():
    """The comment under an attribute that begins with ``supports_`` ends its first sentence with a question mark."""
    lines = inspect.getsource(BaseBackend).splitlines()
    questions = [lines[number + 1] for number, line in enumerate(lines) if line.startswith("    supports_")]
    assert questions
    assert all("?" in question for question in questions)
