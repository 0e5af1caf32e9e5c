"""What the conformance suite works with: what authors override, and how it waits, sends and looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, ClassVar, Final, cast

from django.db import DEFAULT_DB_ALIAS, transaction
from django.test import TransactionTestCase, override_settings

from massmigration import api, states
from massmigration.backends.base import RUN_SHARD, BaseBackend, get_backend
from massmigration.conf import conf
from massmigration.engine.leases import is_live
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationShard
from massmigration.testing.visits import VISIT, VisitingMigration, get_visits

MIGRATIONS: Final = {"massmigration": "massmigration.testing.massmigrations"}
"""Has to be in ``MASSMIGRATION_MODULES`` of workers in other processes as well."""

VISITS: Final = "massmigration:0001_visits"
SLOW: Final = "massmigration:0002_slow"
RESTS: Final = "massmigration:0003_rests"


class BackendHarness(TransactionTestCase):
    """The base of ``BackendConformance``: has no tests itself.

    Attributes:
        backend: Dotted path of the backend.
        db_alias: The database that is migrated; workers have to see the test database.
        extra_settings: Other settings that the tests run with.
        patience_seconds: How long to wait for what has to happen.
        quiet_seconds: How long to wait for something that must not happen.
    """

    __test__ = False  # for pytest: not this class, but its subclasses

    backend: ClassVar[str] = ""
    db_alias: ClassVar[str] = DEFAULT_DB_ALIAS
    extra_settings: ClassVar[dict[str, Any]] = {}
    patience_seconds: ClassVar[float] = 60
    quiet_seconds: ClassVar[float] = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__test__ = bool(cls.backend)
        cls.databases = {DEFAULT_DB_ALIAS, cls.db_alias}

    # What authors override

    def deliver(self) -> None:
        """Let the queue deliver what is due; called again and again while the suite waits.

        The default gives workers that live elsewhere a moment.
        """
        time.sleep(0.05)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Make the queue unreachable for as long as the context is open."""
        self.skipTest(f"{type(self).__name__} does not say how to make its queue unreachable: give it unreachable().")
        yield

    @contextmanager
    def losing(self) -> Iterator[None]:
        """Have the queue take tasks and lose them for as long as the context is open."""
        self.skipTest(f"{type(self).__name__} does not say how to lose what is on its queue: give it losing().")
        yield

    # How the suite works

    def setUp(self) -> None:
        """Make the suite's migrations known, and short slices, so that a queue in this process lets us interfere."""
        if not self.backend:
            self.skipTest("BackendConformance is to be subclassed.")
        mine = {
            "MASSMIGRATION_BACKEND": self.backend,
            "MASSMIGRATION_MODULES": {**conf.modules, **MIGRATIONS},
            "MASSMIGRATION_SLICE_SECONDS": 0.2,
            "MASSMIGRATION_WATCH_SECONDS": 1,
        }
        overrides = override_settings(**(mine | self.extra_settings))
        overrides.enable()
        self.addCleanup(overrides.disable)
        self.addCleanup(self._stop_all)

    def _stop_all(self) -> None:
        for key in (VISITS, SLOW, RESTS):
            with suppress(IllegalMove):
                api.cancel_migration(key, self.db_alias, actor="conformance")
        deadline = time.monotonic() + 5
        while self.is_worked(*self.get_shards()) and time.monotonic() < deadline:
            time.sleep(0.05)

    def get_backend(self, key: str = VISITS) -> BaseBackend:
        """Return the backend of a migration."""
        return get_backend(api.get_migration(key))

    def get_shards(self) -> list[MigrationShard]:
        """Return all shards that there are."""
        return list(MigrationShard.objects.using(self.db_alias).all())

    @staticmethod
    def is_worked(*shards: MigrationShard) -> bool:
        """Return whether a worker holds one of the shards."""
        return any(map(is_live, shards))

    def prepare(self, key: str = VISITS) -> MigrationShard:
        """Start a migration without telling the queue, and return its plan shard."""
        record = api.start_migration(key, self.db_alias, actor="conformance", enqueue=False)
        assert record.attempt_uuid is not None
        # Not read: within a transaction a document store does not give back what was written in it.
        plan_id = MigrationShard.make_id(record.attempt_uuid, MigrationShard.PLAN)
        return MigrationShard(id=plan_id, attempt_uuid=record.attempt_uuid, key=record.key, kind=MigrationShard.PLAN)

    def send(self, shard: MigrationShard, *, delay_seconds: float = 0, name: str = "") -> None:
        """Hand a shard to the backend, in the way that the engine does."""
        backend = self.get_backend(shard.key)
        if backend.supports_queue:
            arguments = {"shard_id": shard.pk, "db_alias": self.db_alias}
            backend.enqueue(RUN_SHARD, arguments, db_alias=self.db_alias, delay_seconds=delay_seconds, name=name)
            return

        def launch() -> None:  # the shard table is the queue: workers are told of the attempt after the commit
            backend.launch(shard.key, self.db_alias, shard.attempt_uuid, [shard.pk])

        transaction.on_commit(launch, using=self.db_alias)

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Deliver until the condition holds; fail if that takes too long."""
        deadline = time.monotonic() + self.patience_seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not happen within {self.patience_seconds:g} seconds.")
            self.deliver()

    def be_quiet(self) -> None:
        """Wait for what must not happen."""
        deadline = time.monotonic() + self.quiet_seconds
        while time.monotonic() < deadline:
            self.deliver()
            time.sleep(0.01)

    def get_status(self, key: str = VISITS) -> str:
        """Return the status of a migration."""
        return api.get_progress(key, self.db_alias).status

    def wait_for_end(self, key: str = VISITS) -> None:
        """Wait until the migration is applied, and look at it with ``assert_applied``."""
        self.wait_until(lambda: self.get_status(key) not in states.ACTIVE, f"The end of {key}")
        self.assert_applied(key)

    def get_first_visit(self, key: str = VISITS) -> datetime:
        """Return when the first item was visited."""
        events = api.get_events(key, self.db_alias, limit=1000)
        return min(event.at for event in events if event.action == VISIT)

    def assert_applied(self, key: str = VISITS) -> None:
        """Fail unless the migration is applied and each item was visited once."""
        progress = api.get_progress(key, self.db_alias)
        assert progress.status == states.APPLIED, f"{key} is {progress.status}: {progress.error}"
        definition = type(cast(VisitingMigration, api.get_migration(key)))
        assert get_visits(key, self.db_alias) == definition.get_all(), "not every item was visited once"
