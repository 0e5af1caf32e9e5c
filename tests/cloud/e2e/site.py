"""The site of these tests: gunicorn in front of the run's databases, its queues, and a person in its admin."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from django.contrib.auth.models import User

from massmigration import recorder, states
from massmigration.models import MigrationRecord, MigrationShard
from tests import servers
from tests.cloud.app.models import Row
from tests.cloud.filling import store
from tests.conftest import ROOT, get_environment
from tests.servers import cloudtasks, processes

KEYS = {
    "simple": "cloudapp:0001_simple",
    "mapper": "cloudapp:0002_mapper",
    "saves": "cloudapp:0003_saves",
    "batch": "cloudapp:0004_batch",
    "custom": "cloudapp:0005_custom",
}
CLOUD_TASKS = "massmigration.backends.cloudtasks.CloudTasksBackend"
DJANGAE = "massmigration.backends.djangae.DjangaeBackend"
LOCAL = "massmigration.backends.local.LocalBackend"

PASSWORD = "secret"


class Queues:
    """The queues of a site, one for each kind of migration.

    Args:
        name: What their names begin with; the emulator serves none of a name that it has had before.
    """

    def __init__(self, name: str) -> None:
        self.client = cloudtasks.get_client()
        self._name = name

    def get_path(self, kind: str) -> str:
        """Return the full name of a queue."""
        return cloudtasks.get_queue_path(f"{self._name}-{kind}")

    def create(self) -> None:
        """Make the queues."""
        for kind in KEYS:
            path = self.get_path(kind)
            self.client.create_queue(parent=path.rpartition("/queues/")[0], queue={"name": path})

    def delete(self) -> None:
        """Delete the queues, with what is left on them."""
        for kind in KEYS:
            self.client.delete_queue(name=self.get_path(kind))
        self.client.transport.close()

    def list(self, kind: str) -> dict[str, Any]:
        """Return by their names the tasks that wait on a queue."""
        return {task.name.rpartition("/")[2]: task for task in self.client.list_tasks(parent=self.get_path(kind))}

    def pause(self, kind: str) -> None:
        """Begin no more deliveries but those that the emulator has in its hands."""
        self.client.pause_queue(name=self.get_path(kind))

    def wait_until_still(self, kind: str) -> dict[str, Any]:
        """Return what is waiting on a paused queue once that has not changed for a second."""
        tasks, since = self.list(kind), time.monotonic()
        while time.monotonic() - since < 1:
            time.sleep(0.05)
            if (now := self.list(kind)).keys() != tasks.keys():
                tasks, since = now, time.monotonic()
        return tasks

    def purge(self, kind: str) -> None:
        """Throw away all that is waiting; to be called while the queue is paused, or the emulator's thread dies."""
        self.client.purge_queue(name=self.get_path(kind))
        assert self.list(kind) == {}

    def resume(self, kind: str) -> None:
        """Deliver again."""
        self.client.resume_queue(name=self.get_path(kind))


class Site:
    """A site that can be killed and started again.

    Args:
        port: Where it listens.
        directory: Where its operations leave their traces.
        environment: Of its processes.
    """

    def __init__(self, port: int, directory: Path, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.queues = Queues(environment["SITE_QUEUE"])
        self.directory = directory
        self.environment = environment
        self.log = ""
        self._port = port
        self._server: servers.Server | None = None
        self._browser = requests.Session()
        self._browser.trust_env = False

    def start(self) -> None:
        """Serve, and return when a page is answered."""
        command = [sys.executable, "-m", "gunicorn", "--workers=2", "--threads=8", f"--bind=127.0.0.1:{self._port}"]
        command += ["--timeout=0", "--no-control-socket", "django.core.wsgi:get_wsgi_application()"]
        directory = Path(tempfile.mkdtemp(prefix="massmigration-site-"))
        self._server = processes.start(
            "The site", self._port, command, directory, stop=processes.KILL_GROUP, env=self.environment
        )
        self._server.wait(lambda server: self._answers())

    def kill(self) -> None:
        """Kill gunicorn and all its workers with SIGKILL, wherever they are; they are gone on return."""
        if self._server is not None:
            self.log += self._server.read_log()
            self._server.stop()
            self._server = None

    def read_log(self) -> str:
        """Return all that the site's processes wrote."""
        return self.log + (self._server.read_log() if self._server is not None else "")

    def log_in(self) -> None:
        """Log a person in who may do everything."""
        User.objects.create_superuser("admin", password=PASSWORD)
        page = f"{self.url}/admin/login/"
        assert self._browser.get(page).status_code == 200
        form = {"username": "admin", "password": PASSWORD, "next": "/admin/massmigration/migrationrecord/"}
        assert self._post(page, form).url.endswith("/migrationrecord/"), "nobody is logged in"

    def press(self, label: str, key: str, db_alias: str) -> str:
        """Press a button on the page that asks first, once, and return the page that follows.

        Args:
            label: The button's text, as the page has it.
            key: Of the migration.
            db_alias: The database.
        """
        action = {"Run migration": "run", "Retry migration": "retry", "Recover migration": "recover"}[label]
        where = f"manage/{db_alias}/{key.replace(':', '/')}/{action}/"
        page = f"{self.url}/admin/massmigration/migrationrecord/{where}"
        assert f'type="submit">{label}<' in self._browser.get(page).text
        answer = self._post(page, {"from": "detail"})
        assert answer.status_code == 200
        return answer.text

    def call_cron(self, **headers: str) -> requests.Response:
        """Call the URL that cron calls."""
        return requests.get(f"{self.url}/massmigration/recover/", headers=headers, timeout=60)

    def _post(self, page: str, form: dict[str, str]) -> requests.Response:
        token = self._browser.cookies["csrftoken"]
        return self._browser.post(page, {**form, "csrfmiddlewaretoken": token}, timeout=60)

    def _answers(self) -> bool:
        try:
            return self._browser.get(f"{self.url}/admin/login/", timeout=20).status_code == 200
        except requests.ConnectionError:
            return False

    def read_calls(self, kind: str) -> list[tuple[int, str]]:
        """Return process and row of each call of an operation, also of those that were rolled back."""
        lines = _read_lines(self.directory / "calls")
        return [(int(pid), row) for pid, its_kind, row in lines if its_kind == kind]

    def halt(self, place: str) -> None:
        """Let operations wait at this place until ``go_on``."""
        (self.directory / f"halt-{place}").touch()

    def go_on(self, place: str) -> None:
        """Let operations pass this place."""
        (self.directory / f"halt-{place}").unlink(missing_ok=True)

    def read_halted(self, place: str) -> list[int]:
        """Return the processes that have waited at this place, as often as they did."""
        lines = _read_lines(self.directory / "halted")
        return [int(pid) for pid, *words in lines if " ".join(words) == place]

    def wait_for(self, is_so: Callable[[], object], *, seconds: float = 180) -> None:
        """Return when something is so; fail with the site's log if it takes too long."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, self.read_log()[-20_000:]
            time.sleep(0.1)  # each look is a dozen queries

    def wait_for_status(self, key: str, db_alias: str, status: str = states.APPLIED, *, seconds: float = 180) -> None:
        """Return when a record has a status; fail at once if it is FAILED instead."""

        def is_there() -> bool:
            record = get_record(key, db_alias)
            assert status == record.status or record.status != states.FAILED, f"{record.error}\n{self.read_log()}"
            return record.status == status

        self.wait_for(is_there, seconds=seconds)


@contextmanager
def serve(backend: str, *, port: int | None = None, has_queues: bool = True, **variables: str) -> Iterator[Site]:
    """Serve the site with queues of its own, and a person who is logged in.

    Args:
        backend: What ``MASSMIGRATION_BACKEND`` is.
        port: Where it listens; without it, where the queue delivers to.
        has_queues: Whether its queues are there from the beginning.
        **variables: Of the environment, such as ``SITE_LEASE_SECONDS``.
    """
    with tempfile.TemporaryDirectory(prefix="massmigration-site-") as directory:
        environment = get_environment(
            {
                "DJANGO_SETTINGS_MODULE": "tests.cloud.e2e.settings",
                "PYTHONPATH": str(ROOT),
                "SITE_BACKEND": backend,
                "SITE_DIRECTORY": directory,
                "SITE_QUEUE": f"site-{uuid.uuid4().hex}",
                **variables,
            }
        )
        site = Site(port or cloudtasks.get_target_port(), Path(directory), environment)
        if has_queues:
            site.queues.create()
        try:
            site.start()
            site.log_in()
            yield site
        finally:
            site.kill()
            site.queues.delete()


def add_rows(db_alias: str, kind: str, count: int) -> None:
    """Store rows for a migration to visit."""
    rows = [Row(name=kind) for _ in range(count)]
    if db_alias == "postgres":
        Row.objects.using(db_alias).bulk_create(rows)
    else:
        store(rows, db_alias)


def count_visits(db_alias: str, kind: str) -> Counter[int]:
    """Return how many rows were visited how often."""
    return Counter(Row.objects.using(db_alias).filter(name=kind).values_list("visits", flat=True))


def get_record(key: str, db_alias: str) -> MigrationRecord:
    """Return a record that is there."""
    record = recorder.get_record(key, db_alias)
    assert record is not None
    return record


def get_shards(key: str, db_alias: str) -> list[MigrationShard]:
    """Return the key ranges of a record's attempt."""
    shards = recorder.get_shards(get_record(key, db_alias).attempt_uuid, db_alias)
    return [shard for shard in shards if shard.kind == MigrationShard.RANGE]


def _read_lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
