"""Why a worker leaves its shard although nothing went wrong: the run was stopped, or it is to be continued later."""

from __future__ import annotations


class Stopped(Exception):
    """The record was paused, cancelled or moved otherwise, so this worker is not to write anything more."""


class Rest(Exception):
    """The shard is to be left alone for a while, for a reason of ours that pages show; an author's is RetryLater."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


class CountedRest(Rest):
    """A rest without progress: the shard remembers how many there were in a row."""
