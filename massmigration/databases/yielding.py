"""What an author's class of querysets yields, compared with the rows that the database returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from massmigration.databases.locking import list_keys
from massmigration.exceptions import InvalidDefinition


def has_own_iteration(queryset: QuerySet[Any]) -> bool:
    """Return whether custom code stands between the rows that the database returns and the objects."""
    if queryset._iterable_class is not ModelIterable:
        return True
    methods = (getattr(type(queryset), name) for name in ("__iter__", "__getitem__", "_fetch_all"))
    return any(not method.__module__.startswith("django.db.models.") for method in methods)


def list_objects(rows: QuerySet[Any], keys: Sequence[Any], *, arranges: bool) -> list[Any]:
    """Return the objects of rows, in the order of their keys, each once although a join may repeat it.

    Args:
        rows: The author's queryset, narrowed down, in the order of the keys.
        keys: The keys of its rows a moment ago.
        arranges: Whether ``has_own_iteration`` is true of it, so that its objects are compared with the keys.

    Raises:
        InvalidDefinition: The objects are not those of the rows.
    """
    objects = {getattr(obj, "pk", None): obj for obj in rows}
    if not arranges:
        return list(objects.values())
    missing, others = set(keys) - objects.keys(), objects.keys() - set(keys)
    if missing or others:  # which the site may have deleted, inserted or moved in the meantime
        keys = list(dict.fromkeys(list_keys(rows)))
        missing, others = missing.intersection(keys), others.difference(keys)
    if missing or others:
        raise InvalidDefinition(
            f"The objects of the queryset of {rows.model._meta.label} are not the rows that the database returned: "
            f"{len(missing)} of {len(keys)} are left out, and {len(others)} are others. {type(rows).__name__} or "
            f"{rows._iterable_class.__name__} changes what it yields. Leave rows out with filter(), and yield one "
            "object for each row."
        )
    return [objects[key] for key in keys if key in objects]
