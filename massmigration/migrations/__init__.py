"""Django migrations of our tables; forwards the class names to files written for django-mass-migration."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from massmigration.definitions.base import BaseMigration
    from massmigration.definitions.batch import BatchMigration
    from massmigration.definitions.custom import CustomMigration
    from massmigration.definitions.mapper import MapperMigration
    from massmigration.definitions.simple import SimpleMigration

__all__ = ["BaseMigration", "BatchMigration", "CustomMigration", "MapperMigration", "SimpleMigration"]

_MODULES: Final = {
    "BaseMigration": "massmigration.definitions.base",
    "BatchMigration": "massmigration.definitions.batch",
    "CustomMigration": "massmigration.definitions.custom",
    "MapperMigration": "massmigration.definitions.mapper",
    "SimpleMigration": "massmigration.definitions.simple",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for (PEP 562): Django imports this package without needing any."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
