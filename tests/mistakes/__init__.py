"""The cases behind the table of ``docs/mistakes.md``: one for each row, registered by the row's id.

To add a mistake, write its row in ``docs/mistakes.md`` and a case with the same id in one of the modules here. A case
is a definition, which is run on ten cities, or a function that takes a ``Trial`` and returns one of ``OUTCOMES``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from massmigration.definitions.base import BaseMigration
from tests.mistakes.trial import OUTCOMES, Trial

__all__ = ["CASES", "OUTCOMES", "Trial", "mistake"]

Case = type[BaseMigration] | Callable[[Trial], str]
Registered = TypeVar("Registered", bound=Case)

CASES: Final[dict[str, Case]] = {}


def mistake(identifier: str) -> Callable[[Registered], Registered]:
    """Register what is decorated as the case of a row.

    Args:
        identifier: The row's id, such as ``async-operation``.
    """

    def register(case: Registered) -> Registered:
        assert identifier not in CASES, f"{identifier} has two cases"
        CASES[identifier] = case
        return case

    return register


from tests.mistakes import files, items, operations, querysets, writes  # noqa: E402, F401  (they register themselves)
