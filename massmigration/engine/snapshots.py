"""What a batch's objects were loaded with: tells which the operation changed, and which the site did meanwhile."""

from __future__ import annotations

import copy
import datetime
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from django.db.models import Field, Model, QuerySet

from massmigration.databases.keyfilters import get_key_fields, is_among
from massmigration.databases.locking import has_schema, lock_query, lock_rows
from massmigration.databases.registry import get_database

_IMMUTABLE: Final = (
    str, int, float, bool, bytes, Decimal, uuid.UUID, datetime.date, datetime.time, datetime.timedelta, type(None),
)  # fmt: skip
_NUMBERS: Final = (bool, int, float)
_ABSENT: Final = object()


def prepare_related(objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
    """Do for references what ``Model.save()`` does: take the key of a related object that was saved after it was set.

    Raise ValueError if one was never saved: its key is not known, and NULL would be written.
    """
    if not objects:
        return
    names = {field.attname for field in fields}
    generic: list[Any] = [
        field
        for field in objects[0]._meta.private_fields
        if hasattr(field, "fk_field") and names & _get_generic_columns(field)
    ]
    if not generic and not any(field.is_relation for field in fields):
        return
    for obj in objects:
        obj._prepare_related_fields_for_save("save", [*fields, *generic])  # type: ignore[attr-defined]
        for field in generic:  # which Django leaves empty in this case
            related = field.get_cached_value(obj, default=None)
            if related is not None and getattr(obj, field.fk_field) is None:
                setattr(obj, field.name, related)


def _get_generic_columns(field: Any) -> set[str]:
    content_type = field.model._meta.get_field(field.ct_field)
    return {content_type.attname, field.model._meta.get_field(field.fk_field).attname}


class Snapshot:
    """The values that a batch's objects were loaded with, taken before the operation gets them.

    Of rows that are locked only the fields of ``update_fields`` are kept, since ``find_stale`` is not needed.
    """

    def __init__(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]], *, is_locked: bool = False) -> None:
        self._names = columns = [field.attname for field in fields]
        if objects and not is_locked:
            columns = [field.attname for field in objects[0]._meta.concrete_fields]
        self._loaded = [(obj.pk, _take(obj, columns)) for obj in objects]

    def find_changed(self, objects: Sequence[Model]) -> list[Model]:
        """Return the objects whose ``update_fields`` are not as they were loaded; the last may be cut off."""
        changed = []
        for obj, (pk, loaded) in zip(objects, self._loaded, strict=False):
            if obj.pk != pk:
                raise ValueError(
                    f"The operation changed the primary key of {obj._meta.label} {pk!r} to {obj.pk!r}, but with "
                    "update_fields it may only set these fields. To copy or delete objects, leave update_fields out."
                )
            values = obj.__dict__
            if not all(_is_same(values.get(name, _ABSENT), loaded.get(name, _ABSENT)) for name in self._names):
                changed.append(obj)
        return changed

    def find_stale(self, objects: Sequence[Model], alias: str) -> set[Any]:
        """Return the keys of the objects whose rows are not as they were loaded any more, or are gone.

        To be called in the transaction that writes.
        """
        if not objects:
            return set()
        model, database = type(objects[0]), get_database(alias)
        expected = self._add_lazily_loaded(objects)
        names = list(dict.fromkeys(name for _, loaded in expected for name in loaded))
        keys_of_row = [field.attname for field in get_key_fields(model)]
        stored: dict[Any, tuple[Any, ...]] = {}
        for keys in database.chunk_keys(model, [pk for pk, _ in expected]):
            rows: QuerySet[Any] = QuerySet(model, using=alias).filter(is_among(model, keys))
            if database.reads_whole_rows:
                stored |= {row.pk: tuple(map(row.__dict__.get, names)) for row in rows}
                continue
            if database.has_row_locks:  # else the site may write until we do
                if model._meta.parents or has_schema(model):
                    lock_rows(model, keys, alias)
                else:
                    rows = lock_query(rows.order_by("pk"))
            for row in rows.values_list(*keys_of_row, *names):  # Django cannot lock what selects a composite key
                parts = row[: len(keys_of_row)]
                stored[parts if len(parts) > 1 else parts[0]] = row[len(parts) :]
        return {pk for pk, loaded in expected if not _is_as_before(stored.get(pk), loaded, names)}

    def _add_lazily_loaded(self, objects: Sequence[Model]) -> list[tuple[Any, dict[str, Any]]]:
        """Return what was loaded, with the deferred fields that the operation has read since."""
        expected = self._loaded[: len(objects)]
        deferred = [field.attname for field in objects[0]._meta.concrete_fields if field.attname not in expected[0][1]]
        if not deferred:
            return expected
        return [
            (pk, {**loaded, **{name: obj.__dict__[name] for name in deferred if name in obj.__dict__}})
            for obj, (pk, loaded) in zip(objects, expected, strict=True)
        ]


def _take(obj: Model, columns: Sequence[str]) -> dict[str, Any]:
    values = obj.__dict__
    return {
        name: value if isinstance(value, _IMMUTABLE) else _copy(value)
        for name in columns
        if (value := values.get(name, _ABSENT)) is not _ABSENT
    }


def _copy(value: Any) -> Any:  # some drivers' bytes cannot be copied
    return bytes(value) if isinstance(value, memoryview) else copy.deepcopy(value)


def _is_as_before(row: tuple[Any, ...] | None, loaded: dict[str, Any], names: Sequence[str]) -> bool:
    """Compare a row; NaN equals nothing, not even itself, and would have the row visited endlessly."""
    if row is None:
        return False
    before = tuple(map(loaded.get, names, row))  # what was never loaded does not count
    return row == before or all(new == old or (new != new and old != old) for new, old in zip(row, before, strict=True))


def _is_same(new: Any, old: Any) -> bool:
    """Compare as JSON does: True is not 1, and 1 is not 1.0, however deep they lie; a new file may have an old name."""
    if type(new) is type(old) and isinstance(new, _IMMUTABLE):
        return bool(new == old)
    if isinstance(new, dict) and isinstance(old, dict):
        return new.keys() == old.keys() and all(_is_same(value, old[key]) for key, value in new.items())
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)):
        return len(new) == len(old) and all(map(_is_same, new, old))
    if [isinstance(new, kind) for kind in _NUMBERS] != [isinstance(old, kind) for kind in _NUMBERS]:
        return False
    try:
        return bool(new == old) and getattr(new, "_committed", True)
    except ValueError:  # arrays of numbers do not compare to one truth
        return False
