"""The text that a migration was imported from: its file may be replaced while a process works with the old one."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from massmigration.discovery.files import MigrationFile

_imported: dict[str, tuple[Any, str]] = {}
"""Per module: what was imported under its name, and the hash of its text."""


def import_source(file: MigrationFile) -> Any:
    """Import a file's module and remember its text; a module that is imported already is returned.

    Args:
        file: The file.

    Returns:
        The module.

    Raises:
        BaseException: Whatever the module raises.
    """
    before = _hash(file.path)
    module = import_module(file.module)
    if not _is_known(file.module, module):
        # A file that is replaced at this very moment: it is not known which of the two was imported.
        _imported[file.module] = module, before if before == _hash(file.path) else ""
    return module


def get_hash(file: MigrationFile) -> str:
    """Return the SHA-256 of the text that was imported, or, if none was, of the file; empty if it is unknown."""
    if _is_known(file.module, sys.modules.get(file.module)):
        return _imported[file.module][1]
    return _hash(file.path)


def _is_known(name: str, module: Any) -> bool:
    return module is not None and name in _imported and _imported[name][0] is module


def _hash(path: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
