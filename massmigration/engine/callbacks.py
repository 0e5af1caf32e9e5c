"""What an operation does besides changing its object: callbacks for after the commit, and direct writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections

_HARMLESS: Final = ("SELECT", "BEGIN", "SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")


class HeldCallbacks:
    """Keeps what operations hand to ``transaction.on_commit`` until their batch is written.

    Where an operation is called before the transaction that writes its batch, Django would call them at once: for rows
    that are not written yet, that may be visited again, or that are never written.
    """

    def __init__(self, alias: str) -> None:
        self._connection: Any = connections[alias]
        self._held: list[tuple[Callable[[], Any], bool]] = []
        self._first = 0

    def __len__(self) -> int:
        return len(self._held) + len(self._connection.run_on_commit[self._first :])

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold what is registered within the block; author code is called there, outside of our transaction."""
        connection = self._connection
        # Only the transaction around an author's test is open here, which is never committed.
        is_inside, self._first = connection.in_atomic_block, len(connection.run_on_commit)
        register, before = connection.on_commit, connection.__dict__.get("on_commit")

        def on_commit(func: Callable[[], Any], robust: bool = False) -> None:
            if not callable(func):
                raise TypeError("on_commit()'s callback must be a callable.")
            if is_inside:
                register(func, robust)
            elif connection.in_atomic_block:  # opened by the author: what is rolled back there is dropped
                register(lambda: self._held.append((func, robust)))
            else:
                self._held.append((func, robust))

        connection.on_commit = on_commit
        try:
            yield
        finally:
            if before is None:
                del connection.on_commit
            else:
                connection.on_commit = before
            self._held += [(func, robust) for _, func, robust in connection.run_on_commit[self._first :]]
            del connection.run_on_commit[self._first :]

    def cut(self, count: int) -> None:
        """Drop all but the first ``count`` callbacks, within the block of ``hold``."""
        surplus = len(self) - count
        inside = min(surplus, len(self._connection.run_on_commit) - self._first)
        if inside > 0:
            del self._connection.run_on_commit[-inside:]
        del self._held[count:]

    def register(self) -> None:
        """Hand all of them to Django; to be called in the transaction that writes the batch."""
        for func, robust in self._held:
            self._connection.on_commit(func, robust)


class WritesByItself(Exception):
    """An operation writes outside of the transaction of its batch: if the batch is repeated, that is done twice."""


class Traces:
    """Finds out whether an object's operation has written to the database by itself.

    With ``refuses`` no statement may write, as the operation is called outside of the transaction of its batch.
    """

    def __init__(self, alias: str, *, refuses: bool = False) -> None:
        self._connection = connections[alias]
        self._refuses = refuses
        self._has_refused = False
        self._has_written = False
        self._callbacks = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch the statements of the block.

        Raise WritesByItself if one would have written, and was not sent; also if the author's code caught the error.
        """
        try:
            with self._connection.execute_wrapper(self._look):
                yield
        except Exception as error:
            if self._has_refused:
                raise WritesByItself from error
            raise
        if self._has_refused:
            raise WritesByItself

    def begin(self) -> None:
        """Forget the last object."""
        self._has_written, self._callbacks = False, len(self._connection.run_on_commit)

    @property
    def are_left(self) -> bool:
        """Whether the operation has written, or registered a callback, since ``begin``."""
        return self._has_written or len(self._connection.run_on_commit) != self._callbacks

    def _look(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        if not str(sql).startswith(_HARMLESS):
            self._has_written = True
            if self._refuses:
                self._has_refused = True
                raise WritesByItself
        return execute(sql, params, many, context)
