"""Finds out why migrations cannot be run: their own problems, and those of what they depend on."""

from __future__ import annotations

from collections.abc import Iterable

from massmigration.discovery.graph import MigrationGraph
from massmigration.exceptions import BrokenMigration, CircularDependency, LoadError, UnknownDependency


def find_problems(
    graph: MigrationGraph, broken: dict[str, BrokenMigration], unknown: Iterable[tuple[str, str]]
) -> dict[str, LoadError]:
    """Return an error for each migration that cannot be run; all others can.

    Args:
        graph: All migrations.
        broken: Those that could not be imported.
        unknown: ``(child, parent)`` where the parent does not exist.

    Returns:
        Errors by key; of several problems the nearest one, so its own before an inherited one.
    """
    own: dict[str, LoadError] = dict(broken)
    for child, parent in unknown:
        text = f"{child} depends on {parent}, which does not exist. Correct its dependencies, or add the file."
        own.setdefault(child, UnknownDependency(text, key=child))
    for cycle in graph.cycles():
        text = f"{describe_cycle(cycle)} Take one of the dependencies out."
        for key in cycle:
            own.setdefault(key, CircularDependency(text, key=key))
    inherited = {}
    for key in graph.nodes if own else []:
        culprit = next((other for other in graph.ancestors(key) if other in own), None)
        if key not in own and culprit is not None:
            inherited[key] = _inherit(key, culprit, own[culprit])
    return own | inherited


def describe_cycle(cycle: list[str]) -> str:
    """Return the sentence that names the members of a circle."""
    if len(cycle) == 1:
        return f"{cycle[0]} depends on itself."
    return f"{join_words(cycle)} depend on each other in a circle."


def join_words(words: Iterable[str]) -> str:
    """Return ``"a, b and c"``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _inherit(key: str, culprit: str, problem: LoadError) -> LoadError:
    inherited = type(problem)(f"{key} depends on {culprit}, which cannot be run: {problem}", key=key)
    if isinstance(problem, BrokenMigration) and isinstance(inherited, BrokenMigration):
        inherited.path = problem.path
    inherited.__cause__ = problem
    return inherited
