"""BaseBackend: the contract between the engine and the transport that calls our task functions elsewhere."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.checks import CheckMessage
from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string

from massmigration.conf import conf
from massmigration.databases.registry import is_transient
from massmigration.exceptions import BackendNotInstalled, BackendUnreachable, ConfigurationError

if TYPE_CHECKING:
    from massmigration.definitions.base import BaseMigration

RUN_SHARD: Final = "massmigration.tasks.run_shard"
WATCH: Final = "massmigration.tasks.watch"
TASKS: Final = (RUN_SHARD, WATCH)
"""What a queue may call; a handler refuses everything else."""


class BaseBackend(ABC):
    """A transport that calls a task function later, elsewhere; tasks may come twice, late and out of order.

    Subclass it and give ``enqueue``. One instance serves one migration.

    Args:
        queue_name: The queue; None for the backend's default.
        params: The migration's ``backend_params``.
    """

    supports_queue: ClassVar[bool] = True
    """Does a queue call our tasks, so that lost ones are to be looked for? Else workers read the shard table."""

    has_workers: bool = True
    """Do workers elsewhere take all that is launched, so that a command only watches? May be a property."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let one of the two answers stand for both: older backends know only ``has_workers``."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "supports_queue" not in own and isinstance(own.get("has_workers"), bool):
            cls.supports_queue = cls.has_workers
        elif "has_workers" not in own and isinstance(cls.has_workers, bool):
            cls.has_workers = cls.supports_queue

    def __init__(self, queue_name: str | None, params: dict[str, Any]) -> None:
        self.queue_name = queue_name
        self.params = params

    @property
    def slice_seconds(self) -> float | None:
        """How long one call of ``run_shard`` may take, in seconds; None if the transport sets no limit."""
        return None

    @abstractmethod
    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Have a task function called later.

        Args:
            task: Dotted path of a module-level function, one of ``TASKS``. ``WATCH`` has to survive a deploy: if the
                transport can choose a version of the code, it chooses the one that serves by default.
            arguments: Its keyword arguments, JSON values.
            db_alias: The database whose transaction, if one is open, has to be committed before.
            delay_seconds: Call it no earlier than this.
            name: The same for the same piece of work, so that a transport may drop duplicates if it can.
        """

    def launch(self, key: str, db_alias: str, attempt_uuid: uuid.UUID, shard_ids: Sequence[str]) -> str:
        """Start the open shards of an attempt; called after the commit that made them ready.

        Args:
            key: The migration's key.
            db_alias: The database.
            attempt_uuid: The attempt.
            shard_ids: Keys of the shards that no worker holds.

        Returns:
            Path of the log file of the work, or an empty string.
        """
        launch_id = uuid.uuid4().hex  # a queue may refuse the name of a task for days after it is gone
        for shard_id in shard_ids:
            arguments = {"shard_id": shard_id, "db_alias": db_alias}
            self.enqueue(RUN_SHARD, arguments, db_alias=db_alias, name=f"{shard_id} {launch_id}")
        return ""

    def check(self) -> list[CheckMessage]:
        """Return what ``manage.py check`` says about a site that uses this backend."""
        return []

    def check_launch(self, db_alias: str, *, origin: str) -> None:  # noqa: B027 - most backends have no objection
        """Raise ConfigurationError if a launch from here cannot work.

        Args:
            db_alias: The database.
            origin: ``"command"``, ``"admin"``, ``"api"`` or ``"worker"``.
        """


def is_worth_redelivery(error: BaseException) -> bool:
    """Return whether a task that raised this may succeed later, because a database or the queue was down."""
    return isinstance(error, (OperationalError, InterfaceError, BackendUnreachable)) or is_transient(error)


@lru_cache(maxsize=64)
def _import_backend(path: str) -> type[BaseBackend]:
    try:
        backend = import_string(path)
    except BackendNotInstalled:
        raise
    except ImportError as error:
        raise ConfigurationError(
            f"The backend '{path}' cannot be imported: {error}. Correct MASSMIGRATION_BACKEND, or the migration's "
            "backend."
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, BaseBackend)):
        raise ConfigurationError(f"The backend '{path}' is not a subclass of BaseBackend. Name one that is.")
    return backend


def get_backend_path(migration: BaseMigration) -> str:
    """Return the dotted path of the backend that runs the migration."""
    return migration.backend or conf.backend


def has_queue(migration: BaseMigration) -> bool:
    """Return whether the migration's backend has a queue; False if there is no such backend."""
    try:
        return _get_class(migration).supports_queue
    except ConfigurationError:
        return False


def get_backend(migration: BaseMigration) -> BaseBackend:
    """Return the backend that runs the migration, whose attributes override the settings.

    Raises:
        ConfigurationError: There is no such backend, or its library is missing.
    """
    backend = _get_class(migration)
    if not isinstance(migration.backend_params, Mapping):
        raise ConfigurationError(
            f"backend_params of {migration.key} is {migration.backend_params!r}, but it has to be a dictionary. "
            "Correct it.",
            key=migration.key,
        )
    return backend(migration.queue_name or conf.task_queue, dict(migration.backend_params))


def _get_class(migration: BaseMigration) -> type[BaseBackend]:
    path = get_backend_path(migration)
    if not isinstance(path, str):
        raise ConfigurationError(
            f"The backend {path!r} is no dotted path. Correct MASSMIGRATION_BACKEND, or the migration's backend."
        )
    return _import_backend(path)
