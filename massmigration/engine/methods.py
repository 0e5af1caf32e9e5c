"""What the methods that authors write have to look like; one whose call would do nothing is refused."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import InvalidDefinition


class Method(NamedTuple):
    """One method that the engine, or a page, calls; of several rows of arguments one is enough."""

    name: str
    arguments: tuple[tuple[str, ...], ...]
    may_yield: bool = False


def check_result(result: object, name: str, migration: BaseMigration) -> None:
    """Raise InvalidDefinition if what a method returned shows that it has done nothing.

    A plain function may return the coroutine or the generator of another one, which would never run.
    """
    if result is None or not isinstance(result, Awaitable | AsyncIterable | Iterator):
        return
    with suppress(Exception):
        getattr(result, "close", lambda: None)()  # or Python would warn that it was never awaited
    raise InvalidDefinition(
        f"{name}() of {migration.key} returned {_describe(result)}, so what it should do was not done. Do the work in "
        f"{name}() itself, or go through what it returned.",
        key=migration.key,
    )


def call(migration: BaseMigration, name: str, *arguments: Any) -> None:
    """Call a method whose result is not used, and check that."""
    check_result(getattr(migration, name)(*arguments), name, migration)


def check_shards(shards: Any, migration: BaseMigration) -> Iterable[Any]:
    """Return what ``get_shards`` returned, or raise InvalidDefinition if it is no list of shards."""
    if isinstance(shards, Iterable) and not isinstance(shards, str | bytes | Mapping):
        return shards
    raise InvalidDefinition(
        f"get_shards() of {migration.key} returned {shards!r:.200}, but it has to return a list of JSON values. Make "
        "it a list.",
        key=migration.key,
    )


def check_total(total: Any, migration: BaseMigration) -> int | None:
    """Return what ``get_total`` returned, or raise InvalidDefinition if it is no number of items."""
    if total is None or type(total) is int:
        return total
    raise InvalidDefinition(
        f"get_total() of {migration.key} returned {total!r:.200}, but it has to return a whole number, or None if it "
        "is unknown. Correct it.",
        key=migration.key,
    )


def find_fault(function: Any, method: Method) -> str:
    """Return what is wrong with a method so that it cannot do its work, and how to write it; empty if it can."""
    shown = " or ".join(f"def {method.name}({', '.join(('self', *row))})" for row in method.arguments)
    if not callable(function):
        return f"is {function!r}, but it has to be a method. Write it as {shown}, or leave it out."
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if any(map(inspect.iscoroutinefunction, (function, called))) or inspect.isasyncgenfunction(called):
        return "is asynchronous, but nothing awaits it, so it would do nothing. Write it without async."
    if inspect.isgeneratorfunction(called) and not method.may_yield:
        return "contains yield, but nothing asks for what it yields, so it would do nothing. Write it without yield."
    try:
        signature, outermost = inspect.signature(function), inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # of functions written in C
        return ""
    # A decorator may pass other arguments on than it is given, so its own have to be wrong too.
    if any(_takes(one, len(row)) for one in (signature, outermost) for row in method.arguments):
        return ""
    calls = " or ".join(f"{method.name}({', '.join(row)})" for row in method.arguments)
    return f"takes {signature}, but it is called as {calls}. Write it as {shown}."


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _describe(result: object) -> str:
    if isinstance(result, Awaitable):
        return "a coroutine"
    return "a generator" if inspect.isgenerator(result) or inspect.isasyncgen(result) else f"a {type(result).__name__}"
