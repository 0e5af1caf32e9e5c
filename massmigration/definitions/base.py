"""BaseMigration: the attributes and hooks that every kind of migration has."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from massmigration.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
    from django.db.models import QuerySet

Dependency = tuple[str, str] | str

launching_attempt: ContextVar[uuid.UUID | None] = ContextVar("launching_attempt", default=None)
"""The attempt whose ``launch()`` is running, so that it cannot end another one that was started meanwhile."""


class Lifecycle(Protocol):
    """What a hand-written ``launch()`` may call; ``apps.ready()`` installs the real one."""

    def mark_as_started(self, migration: BaseMigration, db_alias: str) -> None:
        """Move the record to RUNNING."""

    def mark_as_finished(self, migration: BaseMigration, db_alias: str) -> None:
        """Move the record to APPLIED."""

    def mark_as_errored(self, migration: BaseMigration, db_alias: str, error: BaseException | str) -> None:
        """Move the record to FAILED and keep the error."""

    def check_dependencies(self, migration: BaseMigration, db_alias: str) -> None:
        """Raise DependencyNotApplied if something is missing."""


class BaseMigration:
    """A migration whose author does all the work in ``launch``; only the record is kept.

    Subclass one of the four other kinds unless a tool of yours does the work elsewhere. ``launch``, or what it
    launches, must call ``mark_as_finished`` or ``mark_as_errored`` in the end.

    Args:
        app_label: Label of the app whose folder holds the file.
        name: The file's name without ``.py``.
    """

    dependencies: ClassVar[Sequence[Dependency]] = ()
    """Mass migrations to be applied before, as ``("app_label", "0001_name")``."""

    schema_dependencies: ClassVar[Sequence[tuple[str, str]]] = ()
    """Django migrations to be applied before, as ``("app_label", "0001_name")``."""

    allowed_db_aliases: ClassVar[Sequence[str] | None] = None
    """Databases it may run on; None: all that the routers admit for the app, replicas left out."""

    backend: ClassVar[str | None] = None
    """Dotted path of the backend class; None: the setting ``MASSMIGRATION_BACKEND``."""

    backend_params: ClassVar[dict[str, Any]] = {}
    """Parameters for the backend; each backend has its own."""

    queue_name: ClassVar[str | None] = None
    """Name of the queue; None: the setting ``MASSMIGRATION_TASK_QUEUE``."""

    max_workers: ClassVar[int | None] = None
    """Maximum number of workers at once, on every backend; None: as many as there are."""

    serial: ClassVar[bool] = False
    """Work in the order of the keys, with one worker and one shard."""

    max_retries: ClassVar[int | None] = None
    """How often a batch is repeated after a transient error; None: the setting."""

    transient_errors: ClassVar[type[Exception] | tuple[type[Exception], ...]] = ()
    """Classes of exceptions, or a single one, that count as transient, so that the batch is repeated."""

    destructive: ClassVar[bool] = False
    """Whether it deletes or overwrites data; the confirmation then says so."""

    operator_notes: ClassVar[str] = ""
    """What the person who runs it should know; shown before the start."""

    lifecycle: ClassVar[Lifecycle | None] = None
    """Installed by the app; not for authors."""

    def __init__(self, app_label: str, name: str) -> None:
        self.app_label = app_label
        self.name = name
        self._key = f"{app_label}:{name}"  # kept, because an author's prepare() may set self.name

    @property
    def key(self) -> str:
        """The migration's key, ``"app_label:NNNN_name"``."""
        return self._key

    @property
    def description(self) -> str:
        """The first line of the class's own docstring, or an empty string."""
        doc = type(self).__dict__.get("__doc__") or ""
        return inspect.cleandoc(doc).partition("\n")[0].strip()

    def __repr__(self) -> str:
        return f"<{type(self).__mro__[1].__name__} {self.key}>"

    def __str__(self) -> str:
        return self.key

    def launch(self, db_alias: str) -> None:
        """Do the work, or start it elsewhere; called once per attempt, by a worker.

        Args:
            db_alias: The database that is to be migrated.
        """
        raise ConfigurationError(
            f"{self.key} has no launch(). Write it, or subclass SimpleMigration, MapperMigration, BatchMigration or "
            "CustomMigration instead of BaseMigration.",
            key=self.key,
        )

    def before_start(self, db_alias: str) -> None:
        """Check whether the run may start; raise any exception, with a sentence, to refuse it.

        Called once per attempt, before anything is written.

        Args:
            db_alias: The database that is to be migrated.
        """

    def has_run_permission(self, user: AbstractBaseUser | AnonymousUser) -> bool:
        """Return whether ``user``, who has the app's run permission, may run this migration.

        It may be written as ``has_run_permission(self, user, action, db_alias)`` too. ``action`` is then what the
        person wants to do (``"start"``, ``"pause"``, ``"resume"``, ``"retry"``, ``"accept"``, ``"recover"``,
        ``"cancel"``, ``"restart"``, ``"fake"`` or ``"reset"``), and ``db_alias`` the database.

        Args:
            user: The person who asks, on the admin's pages.
        """
        return True

    def mark_as_started(self, db_alias: str) -> None:
        """Report that the work has begun: the record becomes RUNNING."""
        self._get_lifecycle().mark_as_started(self, db_alias)

    def mark_as_finished(self, db_alias: str) -> None:
        """Report that the work is done: the record becomes APPLIED."""
        self._get_lifecycle().mark_as_finished(self, db_alias)

    def mark_as_errored(self, db_alias: str, error: BaseException | str = "launch() reported an error") -> None:
        """Report that the work failed: the record becomes FAILED and keeps the error."""
        self._get_lifecycle().mark_as_errored(self, db_alias, error)

    def check_dependencies(self, db_alias: str) -> None:
        """Raise DependencyNotApplied if a migration that this one needs is not applied."""
        self._get_lifecycle().check_dependencies(self, db_alias)

    def _get_lifecycle(self) -> Lifecycle:
        if self.lifecycle is None:
            raise ConfigurationError(
                'massmigration is not set up. Add "massmigration" to INSTALLED_APPS and call django.setup().',
                key=self.key,
            )
        return self.lifecycle


AnyMigration = TypeVar("AnyMigration", bound=BaseMigration)


def make_own(migration: AnyMigration) -> AnyMigration:
    """Return another instance of a definition, made as the loader made the first one.

    What ``prepare`` and other methods keep on ``self`` belongs to one worker: other threads must not see it.

    Args:
        migration: The definition.
    """
    app_label, _, name = migration.key.partition(":")
    return type(migration)(app_label, name)


class WorkedMigration(BaseMigration):
    """What the kinds that the engine runs have in common; not for authors."""

    shard_count: ClassVar[int | None] = None
    """How many key ranges the rows are split into at first; None: the setting."""

    batch_size: ClassVar[int | None] = None
    """Objects per batch; None: adjusted so that a batch takes ``MASSMIGRATION_BATCH_SECONDS``."""

    atomic: ClassVar[bool] = True
    """Whether a batch and its cursor are one transaction; without it a crash may repeat one batch."""

    on_error: ClassVar[Literal["stop", "skip"]] = "stop"
    """What happens when an object fails: the run stops, or keeps the failure and continues."""

    max_failures: ClassVar[int | float | None] = None
    """With ``on_error = "skip"``: more open failures than this number, or than this share of the visited objects (of a
    thousand at least), stop the run; None: a tenth."""

    def verify(self, db_alias: str) -> bool | str | None:
        """Check whether the result is right, after the last batch and before APPLIED.

        Args:
            db_alias: The database that was migrated.

        Returns:
            None or True if it is right; False, or a sentence that says what is wrong, if it is not. An exception
            counts as "not right" too. The record is then FAILED with the reason ``verify_failed``.
        """
        return None


class QuerysetMigration(WorkedMigration):
    """What the kinds that go through a queryset have in common; not for authors."""

    other_database: ClassVar[str | None] = None
    """Alias that the queryset reads and writes, if it is not the one that is migrated (then at least once)."""

    lock_rows: ClassVar[bool] = True
    """Lock the batch's rows while they are worked on (databases with row locks)."""

    bounded: ClassVar[bool] = False
    """End at the key that was the largest at the start, for operations that insert into the table they go through."""

    until_empty: ClassVar[bool | None] = None
    """Go over the table again until the queryset is empty; None: if it filters on a field of ``update_fields``."""

    def get_queryset(self, db_alias: str) -> QuerySet[Any]:
        """Return the rows to migrate, unordered and unsliced.

        Args:
            db_alias: The database that is migrated: ``Model.objects.using(db_alias)``.
        """
        raise NotImplementedError(f"{self.key} has no get_queryset(). Write it.")
