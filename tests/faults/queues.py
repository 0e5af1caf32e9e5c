"""Queues as bad as their contract allows: twice, late and in any order; one on disk; and one that cannot be reached."""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from django.db import transaction
from django.utils.module_loading import import_string

from massmigration.backends.base import BaseBackend


class ListBackend(BaseBackend):
    """Collects the tasks in a list, from which the test delivers them."""

    waiting: ClassVar[list[tuple[str, str]]] = []
    delivered: ClassVar[list[tuple[str, str]]] = []

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        self.waiting.append((task, json.dumps(arguments)))

    @classmethod
    def empty(cls) -> None:
        """Forget all tasks."""
        cls.waiting.clear()
        cls.delivered.clear()

    @classmethod
    def deliver(cls, task: tuple[str, str]) -> None:
        """Call the function."""
        cls.delivered.append(task)
        name, arguments = task
        import_string(name)(**json.loads(arguments))

    @classmethod
    def deliver_badly(cls, chance: random.Random) -> None:
        """Deliver until nothing waits: each task twice or thrice, shuffled, and now and then one of long ago."""
        while cls.waiting:
            chance.shuffle(cls.waiting)
            task = cls.waiting.pop()
            for _ in range(chance.choice([2, 3])):
                cls.deliver(task)
            cls.deliver(chance.choice(cls.delivered))


class FolderBackend(BaseBackend):
    """Keeps each task in a file of its own, until the call for it has returned: so tasks outlive whoever is killed."""

    FOLDER: ClassVar[str] = "MASSMIGRATION_TEST_QUEUE"

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Write the file once the transaction that is open on ``db_alias``, if one is, is committed."""
        text = json.dumps([task, arguments])
        transaction.on_commit(partial(self._put, text, time.time() + delay_seconds), using=db_alias)

    @classmethod
    def _put(cls, text: str, due_at: float) -> None:
        name = f"{due_at:017.6f} {uuid.uuid4().hex}"
        unfinished = cls.get_folder() / f".{name}"
        unfinished.write_text(text)
        unfinished.rename(cls.get_folder() / name)

    @classmethod
    def get_folder(cls) -> Path:
        """Return where the tasks lie."""
        return Path(os.environ[cls.FOLDER])

    @classmethod
    def get_waiting(cls) -> list[Path]:
        """Return the files of all tasks, the first that is due first."""
        return sorted(path for path in cls.get_folder().iterdir() if not path.name.startswith("."))

    @classmethod
    def empty(cls) -> None:
        """Forget all tasks, as a purge does."""
        for path in cls.get_folder().iterdir():
            path.unlink(missing_ok=True)

    @classmethod
    def deliver_all(cls, seconds: float, *, twice: bool = False) -> None:
        """Call what is due, in any order, until nothing waits or the time is over.

        Args:
            seconds: For how long.
            twice: Whether each task is delivered twice.
        """
        deadline = time.monotonic() + seconds
        while (waiting := cls.get_waiting()) and time.monotonic() < deadline:
            due = [path for path in waiting if float(path.name.split()[0]) <= time.time()]
            if not due:
                time.sleep(0.01)
                continue
            path = random.choice(due)
            with suppress(FileNotFoundError):  # another process was quicker
                task, arguments = json.loads(path.read_text())
                for _ in range(1 + twice):
                    import_string(task)(**arguments)
                path.unlink()


class UnreachableBackend(BaseBackend):
    """Is down."""

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        raise ConnectionError("connection to the broker refused")
