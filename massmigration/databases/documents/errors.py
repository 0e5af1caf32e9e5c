"""Which errors of Google's services are transient; they come bare, or as the cause of one of Django's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_TRANSIENT: Final = frozenset(
    {"Aborted", "DeadlineExceeded", "InternalServerError", "ResourceExhausted", "RetryError", "ServiceUnavailable"}
)
# Classes of google.api_core.exceptions; https://cloud.google.com/datastore/docs/concepts/errors tells what to repeat.


def is_transient_at_google(error: BaseException) -> bool:
    """Return whether one of Google's services says that the same work may succeed a moment later."""
    return is_google_error(error, _TRANSIENT)


def is_google_error(error: BaseException, names: Collection[str]) -> bool:
    """Return whether an error is, or comes from, one of Google's that has one of these names."""
    for candidate in (error, error.__cause__):
        for base in type(candidate).__mro__:
            if base.__module__ == "google.api_core.exceptions" and base.__name__ in names:
                return True
    return False
