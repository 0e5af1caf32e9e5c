"""Keeps ``massmigrate`` at work in processes of its own, and kills them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from massmigration import api, recorder
from massmigration.engine.leases import is_live
from tests.faults import traps
from tests.testapp.models import City

Popen = Callable[..., "subprocess.Popen[str]"]

PATIENCE_SECONDS = 180.0


def make_cities(db_alias: str, count: int) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias: str) -> set[int]:
    return set(City.objects.using(db_alias).values_list("visits", flat=True))


class Site:
    """One migration on one database, worked on by commands that are killed.

    Args:
        popen_manage: Starts ``python -m django``.
        directory: For the traps and for what the commands say.
        key: The migration, a file in ``tests/faults/massmigrations``.
        db_alias: The database.
        workers: Processes of each command.
        lease_seconds: How long a shard waits for a worker that is dead.
    """

    poll_seconds = 0.03

    def __init__(
        self, popen_manage: Popen, directory: Path, key: str, db_alias: str, *, workers: int = 1, lease_seconds: float
    ) -> None:
        self._popen = popen_manage
        self._directory = directory
        self._command = ["massmigrate", key, f"--database={db_alias}", "--noinput"]
        if workers > 1:
            self._command.append(f"--workers={workers}")
        self._environment = {
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
            "MASSMIGRATION_TEST_LEASE_SECONDS": str(lease_seconds),
            traps.DIRECTORY: str(directory),
        }
        self._log = directory / "log"
        self._groups: list[subprocess.Popen[str]] = []
        self.key, self.db_alias = key, db_alias

    def start(self) -> subprocess.Popen[str]:
        """Type the command once more."""
        with self._log.open("a") as log:
            process = self._popen(*self._command, env=self._environment, stdout=log)
        self._groups.append(process)
        return process

    def run(self) -> int:
        """Type the command and return its exit code; negative is the signal that killed it."""
        return self.start().wait(PATIENCE_SECONDS)

    def tell(self) -> str:
        """Return what the commands said, for the message of a test that fails."""
        return self._log.read_text()

    @property
    def processed(self) -> int:
        if api.get_record(self.key, self.db_alias) is None:
            return 0
        return api.get_progress(self.key, self.db_alias).processed or 0

    def find_holders(self) -> list[int]:
        """Return the process ids of those that hold a shard now and belong to us."""
        record = api.get_record(self.key, self.db_alias)
        if record is None:
            return []
        shards = recorder.get_shards(record.attempt_uuid, self.db_alias)
        pids = {int(shard.worker.split(":")[1]) for shard in shards if is_live(shard)}
        return sorted(pid for pid in pids if self._is_ours(pid))

    def kill_often(self, kills: int, chance: random.Random, *, needs_rows: bool = True) -> None:
        """Kill now a worker, now the command, now both, and go on each time, until the work is done.

        Args:
            kills: How often, at random moments; then the work is left to end.
            chance: Decides what and when.
            needs_rows: Whether each kill waits until rows were done since the one before.
        """
        brake = traps.lay(self._directory, traps.BRAKE)
        current = self.start()
        for number in range(kills):
            self._wait_for_work(self.processed if needs_rows and number else -1)
            time.sleep(chance.uniform(0, 0.4))
            if current.poll() is not None:  # one worker, or nobody is left to watch
                current = self.start()
            self._kill_one(current, chance)
            if current.poll() is not None:
                current = self.start()
        brake.unlink()
        code = current.wait(PATIENCE_SECONDS)
        assert code in (0, -signal.SIGKILL), self.tell()
        if code:
            assert self.run() == 0, self.tell()

    def freeze_often(self, times: int, chance: random.Random, *, seconds: float) -> None:
        """Stop workers for longer than their leases, and let them go on with what is another's by then.

        Args:
            times: How often, at random moments; then the work is left to end.
            chance: Decides which worker and when.
            seconds: For how long.
        """
        brake = traps.lay(self._directory, traps.BRAKE)
        current = self.start()
        for _ in range(times):
            self._wait_for_work(self.processed)
            time.sleep(chance.uniform(0, 0.3))
            holders = self.find_holders()
            frozen = chance.sample(holders, min(2, len(holders)))
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        brake.unlink()
        assert current.wait(PATIENCE_SECONDS) == 0, self.tell()

    def _kill_one(self, current: subprocess.Popen[str], chance: random.Random) -> None:
        earlier = [group for group in self._groups if group is not current and self._is_alive(group)]
        if earlier:  # workers that outlived their command
            os.killpg(earlier[0].pid, signal.SIGKILL)
            return
        choice = chance.random()
        holders = self.find_holders()
        if choice < 0.7 and holders:
            holder = chance.choice(holders)
            with suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)
            if holder == current.pid:
                current.wait()
            time.sleep(0.02)
        elif choice < 0.85:
            current.kill()
            current.wait()
        else:
            os.killpg(current.pid, signal.SIGKILL)
            current.wait()

    def _wait_for_work(self, processed: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.find_holders() or self.processed <= processed:
            is_alive = any(self._is_alive(group) for group in self._groups)
            assert is_alive and time.monotonic() < deadline, f"nobody works: {self.tell()}"
            status = api.get_progress(self.key, self.db_alias).status
            assert status != "applied", "the work was done before the last kill"
            time.sleep(self.poll_seconds)

    def _is_ours(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            return os.getpgid(pid) in {group.pid for group in self._groups}
        return False

    @staticmethod
    def _is_alive(group: subprocess.Popen[str]) -> bool:
        group.poll()  # the command itself may be a zombie of ours
        try:
            os.killpg(group.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def describe(site: Site) -> dict[str, Any]:
    """Return what has to be right in the end."""
    progress = api.get_progress(site.key, site.db_alias)
    return {"status": progress.status, "processed": progress.processed, "visits": get_visits(site.db_alias)}
