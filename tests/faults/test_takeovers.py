"""An object, or a step, that kills each worker: it is counted, blamed, and the run ends."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from massmigration import api, states
from massmigration.models import MigrationFailure, MigrationShard
from tests.conftest import needs_postgres
from tests.faults.nursery import Nursery
from tests.faults.queues import FolderBackend
from tests.faults.support import Site
from tests.faults.victims import QUEUE, SETTINGS
from tests.testapp.models import City

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
    pytest.mark.usefixtures("faulty", "queue_folder"),
]

ROWS = 20
AT = 5
AT_OBJECT, ALTOGETHER = 6, 12
ENOUGH = 16


class Deaths:
    """A run whose workers die, each followed by another one.

    Args:
        nursery: Starts the workers.
        key: The migration.
        db_alias: The database.
        changes: Settings of the workers.
        recovers: Whether the next worker comes by ``massmigration recover``, as from cron.
    """

    def __init__(
        self, nursery: Nursery, key: str, db_alias: str, changes: dict[str, Any], *, recovers: bool = False
    ) -> None:
        self._nursery, self._key, self._db_alias = nursery, key, db_alias
        self._settings = {**SETTINGS, **changes}
        self._has_queue = bool(changes)
        self._recovers = recovers

    def count(self) -> int:
        """Have workers work until the run is over, and return how many of them were killed."""
        deaths, deadline = 0, time.monotonic() + 120
        while self._is_active():
            code = self._run("deliver", 0.5) if self._has_queue else self._work()
            deaths += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL)
            assert deaths <= ENOUGH and time.monotonic() < deadline, f"still at work after {deaths} deaths"
        return deaths

    def start(self) -> None:
        """Start the run."""
        if self._has_queue:
            assert self._run("start", self._key, self._db_alias) == 0
        else:
            api.start_migration(self._key, self._db_alias, enqueue=False)

    def _is_active(self) -> bool:
        return api.get_progress(self._key, self._db_alias).status in states.ACTIVE

    def _work(self) -> int:
        if self._recovers:
            while self._is_active() and not api.get_progress(self._key, self._db_alias).stalled:
                time.sleep(0.02)
            if self._is_active():
                api.recover_migration(self._key, self._db_alias, enqueue=False)
        return self._run("work", self._key, self._db_alias)

    def _run(self, job: str, *arguments: Any) -> int:
        return self._nursery.run(job, *arguments, settings=self._settings).wait()


@pytest.fixture
def make_deaths(nursery, db_alias, settings):
    for name, value in SETTINGS.items():
        setattr(settings, name, value)

    def make(key, way):
        changes = QUEUE if way == "queue" else {}
        if changes:
            settings.MASSMIGRATION_BACKEND = QUEUE["MASSMIGRATION_BACKEND"]
        return Deaths(nursery, key, db_alias, changes, recovers=way == "recover")

    return make


def make_cities(db_alias: str, name: str) -> City:
    """Make rows of which one kills; return that one."""
    cities = City.objects.using(db_alias)
    cities.bulk_create(City(name=name if number == AT else f"City {number}") for number in range(ROWS))
    return cities.get(name=name)


def get_visits(db_alias: str) -> dict[str, int]:
    return dict(City.objects.using(db_alias).values_list("name", "visits"))


@pytest.mark.parametrize(
    ("way", "key", "name"),
    [
        ("workers", "testapp:0021_kills_writing_back", "kills when worked"),
        ("workers", "testapp:0021_kills_writing_back", "kills in prepare"),
        ("workers", "testapp:0021_kills_writing_back", "kills when read"),
        ("recover", "testapp:0022_kills_saving", "kills"),
        ("queue", "testapp:0022_kills_saving", "kills"),
        ("queue", "testapp:0023_kills_batches", "kills"),
        ("queue", "testapp:0024_kills_items", "kills when worked"),
    ],
)
def test_an_object_that_kills_each_worker_is_a_failure_and_all_others_are_done(make_deaths, way, key, name, db_alias):
    bad = make_cities(db_alias, name)
    run = make_deaths(key, way)
    run.start()
    assert run.count() == AT_OBJECT
    progress = api.get_progress(key, db_alias)
    assert (progress.status, progress.reason, progress.processed) == ("failed", states.FAILURES_OPEN, ROWS - 1)
    assert get_visits(db_alias) == {f"City {n}": 1 for n in range(ROWS) if n != AT} | {name: 0}
    failure = MigrationFailure.objects.using(db_alias).get()
    assert (failure.object_key, failure.is_passed) == (str(bad.pk), True)
    assert failure.error_class == "massmigration.exceptions.WorkersLost"
    assert f"{AT_OBJECT} workers in a row were lost at the object with key {bad.pk}" in failure.message
    assert {shard.takeovers or 0 for shard in MigrationShard.objects.using(db_alias)} == {0}


def test_a_retry_gives_the_object_another_chance(make_deaths, db_alias):
    key = "testapp:0021_kills_writing_back"
    bad = make_cities(db_alias, "kills when worked")
    run = make_deaths(key, "workers")
    run.start()
    run.count()
    City.objects.using(db_alias).filter(pk=bad.pk).update(name="tame")
    api.retry_migration(key, db_alias, enqueue=run._has_queue)
    assert run.count() == 0
    assert (api.get_progress(key, db_alias).status, set(get_visits(db_alias).values())) == ("applied", {1})


def test_an_item_that_kills_when_it_is_pulled_fails_the_run(make_deaths, db_alias):
    key = "testapp:0024_kills_items"
    bad = make_cities(db_alias, "kills when pulled")
    run = make_deaths(key, "queue")
    run.start()
    assert run.count() <= AT_OBJECT + 1
    progress = api.get_progress(key, db_alias)
    assert (progress.status, progress.reason) == ("failed", states.OPERATION_ERROR)
    assert "workers in a row were lost" in progress.error and "get_items()" in progress.error
    before = list(City.objects.using(db_alias).filter(pk__lt=bad.pk).values_list("visits", flat=True))
    assert set(before) <= {0, 1} and sum(before) == progress.processed >= AT - 1
    bad.name = "tame"
    bad.save()
    api.retry_migration(key, db_alias, enqueue=run._has_queue)
    assert run.count() == 0
    assert (api.get_progress(key, db_alias).status, set(get_visits(db_alias).values())) == ("applied", {1})


@pytest.mark.parametrize(
    ("way", "key", "where"),
    [
        ("queue", "testapp:0025_kills_simple", "in operation()"),
        ("workers", "testapp:0026_kills_plan", "while planning"),
        ("queue", "testapp:0027_kills_verify", "at the end"),
        ("workers", "testapp:0028_kills_launch", "in launch()"),
    ],
)
def test_what_is_no_object_fails_after_twelve(make_deaths, way, key, where, db_alias):
    City.objects.using(db_alias).create(name="City 0")
    run = make_deaths(key, way)
    run.start()
    assert run.count() == ALTOGETHER
    progress = api.get_progress(key, db_alias)
    assert (progress.status, progress.reason) == ("failed", states.OPERATION_ERROR)
    assert f"{ALTOGETHER} workers in a row were lost {where}" in progress.error
    api.retry_migration(key, db_alias, enqueue=False)
    assert not any(shard.takeovers for shard in MigrationShard.objects.using(db_alias))


def test_the_watch_finds_the_dead_when_their_tasks_are_gone(nursery, db_alias, settings):
    settings.MASSMIGRATION_BACKEND = QUEUE["MASSMIGRATION_BACKEND"]
    key = "testapp:0022_kills_saving"
    make_cities(db_alias, "kills")
    run = Deaths(nursery, key, db_alias, QUEUE)
    run.start()
    deadline, deaths = time.monotonic() + 40, 0
    while run._is_active():
        for path in FolderBackend.get_waiting():  # a queue that gives each task once only
            if "run_shard" in path.read_text() and deaths:
                shard = MigrationShard.objects.using(db_alias).filter(status="running").first()
                if shard is not None:
                    path.unlink()
        deaths += run._run("deliver", 0.5) == -signal.SIGKILL
        assert time.monotonic() < deadline
    assert deaths == AT_OBJECT
    assert api.get_progress(key, db_alias).reason == states.FAILURES_OPEN


@needs_postgres
def test_worker_processes_of_a_command_are_replaced_until_the_object_is_found(popen_manage, tmp_path):
    make_cities("postgres", "kills")
    site = Site(popen_manage, tmp_path, "testapp:0022_kills_saving", "postgres", workers=2, lease_seconds=0.5)
    assert site.run() == 1, site.tell()
    assert site.tell().count("was killed by SIGKILL") == AT_OBJECT
    assert "Object " in site.tell() and f"{AT_OBJECT} workers in a row were lost at the object" in site.tell()
    assert get_visits("postgres") == {f"City {n}": 1 for n in range(ROWS) if n != AT} | {"kills": 0}


def test_the_only_process_is_started_again_and_again(popen_manage, tmp_path, db_alias):
    make_cities(db_alias, "kills")
    site = Site(popen_manage, tmp_path, "testapp:0022_kills_saving", db_alias, lease_seconds=0.2)
    codes = [site.run() for _ in range(AT_OBJECT + 1)]
    assert codes == [-signal.SIGKILL] * AT_OBJECT + [1], site.tell()
