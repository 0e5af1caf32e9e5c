"""Maps the class of a definition to its behaviour, so that definitions need nothing above them."""

from __future__ import annotations

from typing import Final

from massmigration.definitions.base import BaseMigration, WorkedMigration
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.custom import CustomMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.definitions.simple import SimpleMigration
from massmigration.engine.kinds.base import Kind
from massmigration.engine.kinds.items import CustomKind, SimpleKind
from massmigration.engine.kinds.rows import BatchKind, MapperKind

KINDS: Final[dict[type[WorkedMigration], type[Kind]]] = {
    SimpleMigration: SimpleKind,
    MapperMigration: MapperKind,
    BatchMigration: BatchKind,
    CustomMigration: CustomKind,
}


def get_kind(migration: BaseMigration) -> type[Kind] | None:
    """Return the behaviour of a migration; None if its author does all the work in ``launch()``."""
    for definition, kind in KINDS.items():
        if isinstance(migration, definition):
            return kind
    return None
