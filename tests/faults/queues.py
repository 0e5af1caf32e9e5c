"""A queue as bad as its contract allows: twice, late and in any order; and one that cannot be reached."""

from __future__ import annotations

import json
import random
from typing import Any, ClassVar

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


class UnreachableBackend(BaseBackend):
    """Is down."""

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        raise ConnectionError("connection to the broker refused")
