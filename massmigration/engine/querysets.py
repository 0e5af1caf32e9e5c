"""The author's queryset: what it filters on, and which ones cannot be worked in batches."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from massmigration.exceptions import InvalidDefinition

_REFUSALS: Final = (
    (lambda qs: qs.query.is_sliced, "is sliced", "Leave the slice out and filter instead."),
    (
        lambda qs: bool(qs.query.combinator),
        "is a union, intersection or difference",
        "Use Q objects in one filter instead.",
    ),
    (
        lambda qs: bool(qs.query.distinct_fields),
        "is distinct on fields",
        "Leave it out: each row is visited once anyway.",
    ),
    (
        lambda qs: qs._fields is not None or not issubclass(qs._iterable_class, ModelIterable),
        "gives values instead of objects",
        "Leave values() out; use only() to read fewer columns.",
    ),
    (
        lambda qs: qs.query.select_for_update and set(qs.query.select_for_update_of) - {"self"},
        "locks related rows with select_for_update(of=…)",
        "Leave it out: each batch locks its own rows. Lock others in prepare(), without update_fields.",
    ),
    (
        lambda qs: any(
            getattr(part, "contains_over_clause", False) for part in (qs.query.where, *qs.query.annotations.values())
        ),
        "has a window function, which would start again in each batch",
        "Compute it in prepare() or with a subquery.",
    ),
)


def check_queryset(queryset: Any, key: str, db_alias: str) -> None:
    """Raise InvalidDefinition if what ``get_queryset`` returned cannot be worked batch by batch on this database."""
    if not isinstance(queryset, QuerySet):
        raise InvalidDefinition(
            f"get_queryset() of {key} returned {type(queryset).__name__}. Return a QuerySet.", key=key
        )
    for is_refused, fact, way_out in _REFUSALS:
        if is_refused(queryset):
            raise InvalidDefinition(f"The queryset of {key} {fact}. {way_out}", key=key)
    bound_to = queryset.db  # asked once: where it is not bound, a router may answer by chance
    if bound_to != db_alias:
        raise InvalidDefinition(
            f"The queryset of {key} is bound to database '{bound_to}', but the migration runs on '{db_alias}'. "
            "Begin it with Model.objects.using(db_alias), or name the other one in other_database.",
            key=key,
        )


def filters_on(queryset: QuerySet[Any], names: set[str]) -> bool:
    """Return whether the queryset's own WHERE clause looks at one of these fields of its model."""
    fields = queryset.model._meta.concrete_fields
    columns = {field.column for field in fields if {field.name, field.attname} & names}
    todo: list[Any] = [queryset.query.where]
    while todo:
        node = todo.pop()
        target = getattr(node, "target", None)
        if getattr(target, "column", None) in columns and getattr(target, "model", None) in (
            queryset.model._meta.concrete_model,
            *queryset.model._meta.all_parents,
        ):
            return True
        todo += getattr(node, "children", ())
        todo += [part for part in getattr(node, "get_source_expressions", list)() if part is not None]
    return False
