"""The error that fails an attempt although no object has failed."""

from __future__ import annotations

from massmigration.exceptions import MassMigrationError


class FinishRefused(MassMigrationError):
    """The attempt is not applied.

    Args:
        reason: One of ``states.REASONS``.
        message: One sentence.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
