"""The error that fails an attempt although no object has failed."""

from __future__ import annotations

from massmigration.exceptions import MassMigrationError


class FinishRefused(MassMigrationError):
    """The attempt is not applied, for one of ``states.REASONS`` and with a sentence that says more."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
