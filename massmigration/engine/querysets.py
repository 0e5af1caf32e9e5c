"""The author's queryset: what cannot be worked is refused, and the rest is read in windows of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from django.db import connections
from django.db.models import Model, QuerySet
from django.db.models.query import ModelIterable

from massmigration.database import is_document_store, is_transient
from massmigration.engine.keyfilters import chunk_keys, get_key_fields, is_after, is_among, is_from, is_upto
from massmigration.engine.keys import KeyCodec
from massmigration.exceptions import InvalidDefinition
from massmigration.redaction import get_message

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
        lambda qs: any(
            getattr(annotation, "contains_over_clause", False) for annotation in qs.query.annotations.values()
        ),
        "is annotated with a window function, which would start anew in each batch",
        "Compute it in prepare() or with a subquery.",
    ),
)


def check_queryset(queryset: Any, key: str, db_alias: str) -> None:
    """Raise InvalidDefinition if the queryset cannot be worked batch by batch.

    Args:
        queryset: What ``get_queryset`` returned.
        key: The migration's key, for the message.
        db_alias: The database that the queryset has to be bound to.
    """
    if not isinstance(queryset, QuerySet):
        raise InvalidDefinition(
            f"get_queryset() of {key} returned {type(queryset).__name__}. Return a QuerySet.", key=key
        )
    for is_refused, fact, way_out in _REFUSALS:
        if is_refused(queryset):
            raise InvalidDefinition(f"The queryset of {key} {fact}. {way_out}", key=key)
    if queryset.db != db_alias:
        raise InvalidDefinition(
            f"The queryset of {key} is bound to database '{queryset.db}', but the migration runs on '{db_alias}'. "
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


class KeyRange(NamedTuple):
    """A range of decoded keys; None is open."""

    after: Any
    upto: Any

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the queryset's rows within the range."""
        if self.after is not None:
            queryset = queryset.filter(is_after(queryset.model, self.after))
        if self.upto is not None:
            queryset = queryset.filter(is_upto(queryset.model, self.upto))
        return queryset


class Reading(NamedTuple):
    """What one look at a range of keys found.

    Attributes:
        rows: Objects, or keys.
        last: The largest key that was looked at; None if there was none.
        is_full: Whether more may follow within the range.
    """

    rows: list[Any]
    last: Any
    is_full: bool


class Table:
    """The rows of a queryset and the keys of its whole table.

    Args:
        queryset: What ``get_queryset`` returned, checked.
    """

    def __init__(self, queryset: QuerySet[Any]) -> None:
        self.alias = queryset.db
        self.codec = KeyCodec(queryset.model)
        # Each row is visited once whatever the joins do, and DISTINCT cannot be locked: so it is left out.
        self.queryset = queryset.order_by()
        self.queryset.query.distinct = False
        self.queryset.query.standard_ordering = True  # reverse() would turn the order of the keys as well
        if is_document_store(self.alias):  # where fewer fields cost another index, and joins are unknown
            self.queryset = self.queryset.defer(None).select_related(None)
        is_whole = not queryset.query.where and not queryset.query.annotations
        # Document stores answer a filter from an index, and have to walk to what an OFFSET leaves out.
        self.has_windows = not is_whole and not is_document_store(self.alias)
        self.is_grouped = queryset.query.group_by is not None
        self.keys: QuerySet[Any] = QuerySet(queryset.model, using=self.alias)

    def find_window_end(self, keys: KeyRange, window: int) -> Any:
        """Return the key at which a window of so many keys ends, or None if the range ends before.

        Reads nothing but the index of the primary key, whatever the queryset's filter is.
        """
        ahead = keys.narrow(self.keys).order_by("pk")
        found = self._list_keys(ahead[window - 1 : window])
        return found[0] if found else None

    def read_keys(self, keys: KeyRange, limit: int, *, lock: bool) -> Reading:
        """Return the keys of at most ``limit`` matching rows, in order; locked if asked for."""
        rows = self._order(keys.narrow(self.queryset).select_related(None), lock=lock and self._locks_itself)
        values = self._list_keys(rows[:limit])
        reading = Reading(list(dict.fromkeys(values)), values[-1] if values else None, len(values) >= limit)
        if lock and not self._locks_itself and values:
            self._lock(reading.rows)
            found = self._list_keys(self._select(reading.rows).order_by("pk"))
            reading = reading._replace(rows=list(dict.fromkeys(found)))
        return reading

    def read_objects(self, keys: KeyRange, limit: int, *, lock: bool) -> Reading:
        """Return at most ``limit`` matching objects, in order, each once although a join may repeat it."""
        if lock and not self._locks_itself:
            # GROUP BY cannot be locked, and a child's row lies in two tables: so lock first, read afterwards.
            reading = self.read_keys(keys, limit, lock=False)
            rows = self.read_listed(reading.rows, lock=True) if reading.rows else []
        else:
            rows = list(self._order(keys.narrow(self.queryset), lock=lock)[:limit])
            reading = Reading([], rows[-1].pk if rows else None, len(rows) >= limit)
        return reading._replace(rows=_drop_repeated(rows))

    def read_listed(self, values: list[Any], *, lock: bool = False) -> list[Any]:
        """Return the matching objects that have one of these keys, in order; locked if asked for."""
        if lock:
            self._lock(values)
        return _drop_repeated(list(self._select(values).order_by("pk")))

    def select_batch(self, values: list[Any]) -> QuerySet[Any]:
        """Return the rows of a batch as a queryset, for statements of the author's own.

        Args:
            values: The keys that ``read_keys`` returned, at least one.
        """
        # On SQLite nobody else writes while we do: then the range holds the same rows, and takes two parameters.
        return self._select_range(values) if connections[self.alias].vendor == "sqlite" else self._select(values)

    def count_matching(self, values: list[Any]) -> int:
        """Return how many of these keys' rows the queryset finds.

        Args:
            values: The keys of a batch, in order, at least one.
        """
        if not self._select_range(values).exists():  # nearly always, and quicker asked than for each key
            return 0
        chunks = chunk_keys(self.queryset.model, values, connections[self.alias])
        return sum(len(set(self._list_keys(self._select(chunk)))) for chunk in chunks)

    def check_readable(self, key: str) -> None:
        """Raise InvalidDefinition if a document store cannot read the queryset in the order of its keys.

        Args:
            key: The migration's key, for the message.
        """
        if not is_document_store(self.alias):
            return
        try:
            for first in self._list_keys(self.queryset.order_by("pk")[:1]):
                self._list_keys(KeyRange(first, None).narrow(self.queryset).order_by("pk")[:1])
        except Exception as error:
            if is_transient(error):
                raise
            raise InvalidDefinition(
                f"The queryset of {key} cannot be read in the order of its keys on database '{self.alias}': "
                f"{get_message(error)}. "
                "Filter for equal values of indexed fields only, and leave the rest to the operation.",
                key=key,
                db_alias=self.alias,
            ) from error

    def _select_range(self, values: Sequence[Any]) -> QuerySet[Any]:
        model = self.queryset.model
        return self.queryset.filter(is_from(model, values[0]), is_upto(model, values[-1]))

    def _select(self, values: Sequence[Any]) -> QuerySet[Any]:
        return self.queryset.filter(is_among(self.queryset.model, values))

    def _list_keys(self, rows: QuerySet[Any]) -> list[Any]:
        """Return the keys of rows; column by column, because Django cannot lock what selects a composite key."""
        fields = get_key_fields(rows.model)
        if len(fields) == 1:
            return [key for (key,) in rows.values_list("pk")]
        return list(map(tuple, rows.values_list(*(field.attname for field in fields))))

    @property
    def _locks_itself(self) -> bool:
        model = self.queryset.model
        return not self.is_grouped and not model._meta.parents and not _has_schema(model)

    def _order(self, rows: QuerySet[Any], *, lock: bool) -> QuerySet[Any]:
        rows = rows.order_by("pk")
        if not lock:
            return rows
        # FOR UPDATE OF takes no schema's name: such a table is locked by a statement that reads nothing else.
        of = () if _has_schema(rows.model) else ("self",)
        return rows.select_for_update(of=of, no_key=self._has_no_key)

    @property
    def _has_no_key(self) -> bool:
        return bool(connections[self.alias].features.has_select_for_no_key_update)

    def _lock(self, values: list[Any]) -> None:
        model = self.queryset.model
        for table in (model, *model._meta.all_parents):
            link = None if table is model else model._meta.get_ancestor_link(table)
            chosen = values
            if link is not None and not link.primary_key:
                mine: QuerySet[Any] = QuerySet(model, using=self.alias).filter(is_among(model, values))
                chosen = list(mine.values_list(link.attname, flat=True))
            rows = self._order(QuerySet(table, using=self.alias).filter(is_among(table, chosen)), lock=True)
            self._list_keys(rows)


def _has_schema(model: type[Model]) -> bool:
    """Return whether ``db_table`` names a schema by the quotes in it, as ``"schema"."table"`` does."""
    return '"."' in model._meta.db_table


def _drop_repeated(objects: list[Any]) -> list[Any]:
    return list({obj.pk: obj for obj in objects}.values())
