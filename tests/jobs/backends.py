"""Backends with workers elsewhere, as small as they can be."""

from massmigration import tasks
from massmigration.backends.base import BaseBackend


class ImmediateBackend(BaseBackend):
    """Calls the task at once."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        getattr(tasks, task.rpartition(".")[2])(**arguments)


class LosingBackend(ImmediateBackend):
    """Loses the first task that it is given."""

    lost: list[str] = []

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        if not self.lost:
            self.lost.append(task)
        else:
            super().enqueue(task, arguments, db_alias=db_alias)


class SilentBackend(BaseBackend):
    """Has no workers at all."""

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        pass
