"""The kind whose author does all the work in ``launch()``: the engine keeps the record only."""

from __future__ import annotations

from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds.base import COMMON_METHODS, Kind


class LaunchKind(Kind):
    """One call of ``launch()``, in the shard that plans."""

    definition = BaseMigration
    methods = COMMON_METHODS
    is_launched = True
    has_objects = False
    plans_in = "in launch()"
