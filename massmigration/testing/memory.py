"""MemoryQueueBackend: a queue in the memory of the test's process, from which the test delivers."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any, ClassVar, NamedTuple

from django.db import transaction
from django.utils.module_loading import import_string

from massmigration.backends.base import BaseBackend


class MemoryTask(NamedTuple):
    """One task on the queue.

    Attributes:
        task: Dotted path of the function.
        arguments: Its keyword arguments as JSON.
        name: What a second one of the same work has too, or an empty string.
        due_at: When it may be delivered, by ``time.monotonic()``.
    """

    task: str
    arguments: str
    name: str
    due_at: float


class MemoryQueueBackend(BaseBackend):
    """Collects tasks; ``deliver()`` calls the next one, in this process.

    All instances share one queue. Call ``reset()`` before a test.
    """

    waiting: ClassVar[list[MemoryTask]] = []
    names: ClassVar[set[str]] = set()
    is_reachable: ClassVar[bool] = True
    """Set it to False to have ``enqueue`` fail."""

    is_losing: ClassVar[bool] = False
    """Set it to True to have tasks accepted and forgotten."""

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Put the task on the queue once the transaction that is open on ``db_alias``, if one is, is committed."""
        if not self.is_reachable:
            raise ConnectionError("The queue in memory is set to be unreachable.")
        message = MemoryTask(task, json.dumps(arguments), name, time.monotonic() + delay_seconds)
        transaction.on_commit(partial(self._put, message), using=db_alias)

    @classmethod
    def _put(cls, message: MemoryTask) -> None:
        if cls.is_losing or message.name in cls.names:
            return
        if message.name:
            cls.names.add(message.name)
        cls.waiting.append(message)

    @classmethod
    def reset(cls) -> None:
        """Forget all tasks, and work again."""
        cls.waiting.clear()
        cls.names.clear()
        cls.is_reachable, cls.is_losing = True, False

    @classmethod
    def deliver(cls, *, hurry: bool = False) -> bool:
        """Call the next task, and keep it for another try if it raises.

        Args:
            hurry: Whether to deliver tasks before they are due, too.

        Returns:
            Whether there was one.
        """
        now = time.monotonic()
        message = next((each for each in cls.waiting if hurry or each.due_at <= now), None)
        if message is None:
            return False
        cls.waiting.remove(message)
        try:
            import_string(message.task)(**json.loads(message.arguments))
        except Exception:
            cls.waiting.append(message)
            raise
        return True
