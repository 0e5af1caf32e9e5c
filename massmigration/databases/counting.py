"""Numbers of rows: counted exactly when that is quick, else estimated and marked as estimates."""

from __future__ import annotations

from typing import Final, NamedTuple

COUNT_SECONDS: Final = 1.0
"""A count that takes longer is given up."""


class Count(NamedTuple):
    """A number of rows; None if it is not known."""

    number: int | None
    is_estimate: bool
