"""Warnings of Google's and djangae's packages, which are not ours to cure; every other warning fails the tests."""

from __future__ import annotations

import builtins
import re
import warnings
from typing import Final

# What filterwarnings of pytest takes: action, beginning of the message, category, and the one module that warns.
FILTERS: Final = (
    "ignore:You are using a :FutureWarning:google.api_core._python_version_support",
    "ignore:The 'warn' method is deprecated:DeprecationWarning:gcloudc.db.backends.common.helpers",
    "ignore:Type google._upb._message.:DeprecationWarning",
)


def ignore_warnings() -> None:
    """Ignore them while settings and apps are loaded, which is before pytest takes filters from a conftest."""
    for line in FILTERS:
        _, message, category, *modules = line.split(":")
        where = rf"{re.escape(modules[0])}\Z" if modules else ""
        warnings.filterwarnings("ignore", re.escape(message), getattr(builtins, category), where)
