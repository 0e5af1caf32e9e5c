"""Orders migrations by what they depend on, and says why some cannot be run; it knows keys only, no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from massmigration.discovery.reference import join_words
from massmigration.exceptions import BrokenMigration, CircularDependency, LoadError, UnknownDependency


def get_sort_key(key: str) -> tuple[str, int, str]:
    """Return what a key is sorted by: app, number as a number (``9_a`` before ``10_b``), name."""
    app_label, _, name = key.partition(":")
    number = re.match(r"[0-9]+", name)
    return app_label, int(number[0]) if number else 0, name


class MigrationGraph:
    """Which migration depends on which.

    A *parent* has to be applied before its *child*. Nothing here raises on a circle: the nodes in it are
    told by ``cycles()`` and left out of ``order()``, so that all the others can be worked.
    """

    def __init__(self) -> None:
        self._parents: dict[str, set[str]] = {}

    @property
    def nodes(self) -> list[str]:
        """All keys, sorted."""
        return sorted(self._parents, key=get_sort_key)

    def add_node(self, key: str) -> None:
        """Make ``key`` known; once is enough."""
        self._parents.setdefault(key, set())

    def add_dependency(self, child: str, parent: str) -> None:
        """Say that ``parent`` has to be applied before ``child``; both become known."""
        self.add_node(child)
        self.add_node(parent)
        self._parents[child].add(parent)

    def parents(self, key: str) -> list[str]:
        """Return the keys that ``key`` itself depends on, sorted."""
        return sorted(self._parents[key], key=get_sort_key)

    def ancestors(self, key: str) -> list[str]:
        """Return all that has to be applied before ``key``, dependencies first.

        In a circle the order is a fair one, and ``key`` is not its own ancestor.
        """
        return [ancestor for ancestor in self._walk([key]) if ancestor != key]

    def order(self) -> list[str]:
        """Return all keys, dependencies first, otherwise sorted; without those that are in a circle."""
        in_cycles = {key for cycle in self.cycles() for key in cycle}
        return [key for key in self._walk(self.nodes) if key not in in_cycles]

    def cycles(self) -> list[list[str]]:
        """Return the groups of keys that all depend on each other, each group sorted."""
        try:
            TopologicalSorter(self._parents).prepare()
        except CycleError:
            reach = {key: set(self._walk(self.parents(key))) for key in self.nodes}  # with itself if it is in a circle
        else:
            return []
        found: dict[str, list[str]] = {}
        for key in self.nodes:
            if key in reach[key]:
                group = [other for other in self.nodes if other in reach[key] and key in reach[other]]
                found.setdefault(group[0], group)
        return list(found.values())

    def leaves(self, app_label: str) -> list[str]:
        """Return the keys of an app that no other of the same app depends on, sorted."""
        own = [key for key in self.nodes if key.startswith(f"{app_label}:")]
        needed = {parent for key in own for parent in self._parents[key]}
        return [key for key in own if key not in needed]

    def _walk(self, keys: list[str]) -> Iterator[str]:
        """Yield ``keys`` and all their ancestors once, parents before children, depth first."""
        seen: set[str] = set()
        stack = [(key, False) for key in reversed(keys)]
        while stack:
            key, is_done = stack.pop()
            if is_done:
                yield key
            elif key not in seen:
                seen.add(key)
                stack.append((key, True))
                stack.extend((parent, False) for parent in reversed(self.parents(key)) if parent not in seen)


def find_problems(
    graph: MigrationGraph, broken: dict[str, BrokenMigration], unknown: Iterable[tuple[str, str]]
) -> dict[str, LoadError]:
    """Return an error for each migration that cannot be run; of several problems its own before an inherited one.

    ``unknown`` has ``(child, parent)`` where the parent does not exist.
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


def _inherit(key: str, culprit: str, problem: LoadError) -> LoadError:
    inherited = type(problem)(f"{key} depends on {culprit}, which cannot be run: {problem}", key=key)
    if isinstance(problem, BrokenMigration) and isinstance(inherited, BrokenMigration):
        inherited.path = problem.path
    inherited.__cause__ = problem
    return inherited
