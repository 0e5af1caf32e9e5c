"""Fault: one problem of a migration file that a check found."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """One problem that a check found.

    Attributes:
        id: ``E001`` for an error, ``W001`` for a warning.
        app_label: The app it is about.
        place: The file it is in, or the app's label.
        text: What is wrong.
        hint: What to do.
    """

    id: str
    app_label: str
    place: Path | str
    text: str
    hint: str
