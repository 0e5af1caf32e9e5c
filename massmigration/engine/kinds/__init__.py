"""Finds the kind of a migration by the class of its definition, so that definitions need nothing above them."""

from __future__ import annotations

from typing import Final

from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds.base import Kind
from massmigration.engine.kinds.custom import CustomKind
from massmigration.engine.kinds.querysets import BatchKind, MapperKind
from massmigration.engine.kinds.simple import LaunchKind, SimpleKind

KINDS: Final[tuple[type[Kind], ...]] = (LaunchKind, SimpleKind, MapperKind, BatchKind, CustomKind)
"""The first is the kind of every definition that is of no other one."""


def get_kind(migration: BaseMigration) -> Kind:
    """Return the kind of a migration, which answers what its class decides."""
    return next(kind for kind in reversed(KINDS) if isinstance(migration, kind.definition))(migration)
