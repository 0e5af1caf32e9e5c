"""Storms in which the database itself is in trouble."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, OperationalError, connections, transaction

from massmigration import states
from tests.faults.nursery import Child, Nursery
from tests.faults.restarting import OwnPostgres
from tests.faults.storms import KillStorm

NAME = "SELECT current_database()"
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
WAITING = f"{OTHERS} AND wait_event_type = 'Lock'"


def wait_until(condition: Callable[[], Any], seconds: float = 0.4) -> None:
    """Wait until a condition holds, or the time is over."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


def ask(db_alias: str, statement: str) -> list[Any]:
    """Execute a statement and return the first column of its rows."""
    with connections[db_alias].cursor() as cursor:
        cursor.execute(statement)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


class TroubleStorm(KillStorm):
    """Workers, and a trouble while they work."""

    workers = 2
    """How many are at work before the trouble; none if it comes with a worker of its own."""

    def rage(self) -> None:
        """Begin, and get into trouble."""
        for _ in range(self.chance.randint(1, 3)):
            if self.get_status() == states.APPLIED:
                return
            while sum(child.poll() is None for child in self.children) < self.workers:
                self.start_child()
            time.sleep(self.chance.uniform(0, 0.08))
            self.make_trouble()
            if self.chance.random() < 0.3:
                self._act()

    def make_trouble(self) -> None:
        """Do to the database what the storm is about."""
        raise NotImplementedError


class ReadOnlyStorm(TroubleStorm):
    """A database that refuses to write, for a while: as after a fail-over, or by a setting."""

    def __init__(self, chance: random.Random, db_alias: str, nursery: Nursery) -> None:
        super().__init__(chance, db_alias, nursery)
        self.workers = 0 if db_alias == "default" else 2

    def make_trouble(self) -> None:
        """On PostgreSQL for all who connect from now on, on SQLite for a worker that begins."""
        if self.db_alias == "default":
            self._try_on_sqlite()
            return
        name = ask(self.db_alias, NAME)[0]
        try:
            ask(self.db_alias, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            ask(self.db_alias, CUT)
            self.note("read-only")
            time.sleep(self.chance.uniform(0.05, 0.2))
        finally:
            ask(self.db_alias, f"ALTER DATABASE {name} RESET default_transaction_read_only")
            ask(self.db_alias, CUT)
        self.made["database read-only for a while"] += 1

    def _try_on_sqlite(self) -> None:
        after, length = self.chance.randint(0, 15), self.chance.randint(1, 8)
        child = self.start_child(read_only=(after, length))
        child.wait()
        self.note(f"read-only after {after} writes, for {length}: {child.tell()}")
        self.made["database read-only for a while"] += "readonly database" in child.tell() or self._was_blamed()

    def _was_blamed(self) -> bool:
        from massmigration import recorder

        record = recorder.get_record(self.key, self.db_alias)
        return record is not None and "readonly database" in record.error


class FullStorm(TroubleStorm):
    """A file that may not grow any more, by SQLite's own bound or by the operating system's."""

    workers = 0

    def make_trouble(self) -> None:
        """Let a worker begin that finds the disk almost full."""
        for child in self.children:
            child.kill()
            child.wait()
        ask(self.db_alias, "VACUUM")
        pages, room = ask(self.db_alias, "PRAGMA page_count")[0], self.chance.randint(0, 1)
        size = ask(self.db_alias, "PRAGMA page_size")[0]
        if self.chance.random() < 0.5:
            child = self.start_child(statements={self.db_alias: [f"PRAGMA max_page_count = {pages + room}"]})
        else:
            child = self.start_child(file_limit=(pages + room) * size)
        child.wait()
        self.note(f"{room} pages left: {child.tell()}")
        self.made["disk full for a while"] += child.wait() != 0 or self.get_status() == states.FAILED


class ServerStorm(TroubleStorm):
    """Deadlocks with another connection, and connections that the server cuts."""

    options = {"statements": {"postgres": ["SET deadlock_timeout = '5ms'"]}}

    def rage(self) -> None:
        """Count the deadlocks that the server itself counts."""
        before = self._count_deadlocks()
        super().rage()
        self.settle()
        self.made["deadlock provoked by another connection"] += self._count_deadlocks() - before

    def _count_deadlocks(self) -> int:
        statement = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(ask(self.db_alias, statement)[0])

    def make_trouble(self) -> None:
        """One of both."""
        if self.chance.random() < 0.3:
            wait_until(lambda: ask(self.db_alias, OTHERS)[0])
            number = len(ask(self.db_alias, CUT))
            self.note(f"cut {number}")
            self.made["connections cut by the server"] += number
        else:
            self._provoke()

    def _provoke(self) -> None:
        """Lock rows in the order that is not the worker's: the last of a batch, then the first."""
        keys = sorted(self.site.first - set(self.site.deleted))
        first = self.chance.choice((0, self.chance.randrange(0, len(keys) - 3, 4)))
        try:
            with transaction.atomic(using=self.db_alias):
                self.site.mark(keys[first + 3])
                self.start_child()
                wait_until(lambda: ask(self.db_alias, WAITING)[0])
                self.site.mark(keys[first])
        except OperationalError as error:
            self.note(f"deadlock for the site: {error}")
        else:
            self.note("site went backwards")
            self.site.note_changes(keys[first], keys[first + 3])


class RestartStorm(TroubleStorm):
    """A server that is killed and started again.

    Args:
        chance: Decides when.
        db_alias: The alias that means the server.
        nursery: Starts the workers.
        server: The server.
    """

    def __init__(self, chance: random.Random, db_alias: str, nursery: Nursery, server: OwnPostgres) -> None:
        super().__init__(chance, db_alias, nursery)
        self._server = server
        self.options = {"databases": {db_alias: server.changes}}

    def start_child(self, **options: Any) -> Child:
        """Begin to work, when the server is there."""
        connections[self.db_alias].close_if_unusable_or_obsolete()
        return super().start_child(**options)

    def make_trouble(self) -> None:
        """Restart it."""
        connections[self.db_alias].close()
        self._server.restart()
        self.note("restart")
        self.made["server restarted at once, without a good-bye"] += 1
        try:
            self.get_status()
        except DatabaseError:
            connections[self.db_alias].close()
