"""Workers in the tests of the engine look for work more often than in production."""

from __future__ import annotations

import pytest

from massmigration import worker


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker that has nothing to do look again soon."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(worker, "LONGEST_POLL_SECONDS", 0.1)
