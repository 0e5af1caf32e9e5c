"""The author's queryset: what cannot be worked is refused, and the rest is read in windows of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from django.db import connections
from django.db.models import F, QuerySet
from django.db.models.query import ModelIterable

from massmigration.databases.keyfilters import chunk_keys, get_key_fields, is_after, is_among, is_from, is_upto
from massmigration.databases.keys import KeyCodec
from massmigration.databases.locking import has_schema, list_keys, lock_query, lock_rows
from massmigration.databases.redaction import get_message
from massmigration.databases.transactions import is_document_store, is_transient
from massmigration.engine.yielding import has_own_iteration, list_objects
from massmigration.exceptions import InvalidDefinition

_Read = Callable[[QuerySet[Any], Sequence[Any]], list[Any]]

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
        "has a window function, which would start anew in each batch",
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
    bound_to = queryset.db  # asked once: where nobody bound it, a router may answer by chance
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
        # Rows are locked by the engine, batch by batch: skip_locked would skip rows, and nowait blame them.
        self.wants_locks = bool(queryset.query.select_for_update)
        self.queryset.query.select_for_update = False
        self.queryset.query.standard_ordering = True  # reverse() would turn the order of the keys as well
        if is_document_store(self.alias):  # where fewer fields cost another index, and joins are unknown
            self.queryset = self.queryset.defer(None).select_related(None)
        is_whole = not queryset.query.where and not queryset.query.annotations
        # Document stores answer a filter from an index, and have to walk to what an OFFSET leaves out.
        self.has_windows = not is_whole and not is_document_store(self.alias)
        self.is_grouped = queryset.query.group_by is not None
        self.arranges = has_own_iteration(queryset)
        self.keys: QuerySet[Any] = QuerySet(queryset.model, using=self.alias)

    def find_window_end(self, keys: KeyRange, window: int) -> Any:
        """Return the key at which a window of so many keys ends, or None if the range ends before.

        Reads nothing but the index of the primary key, whatever the queryset's filter is.
        """
        ahead = keys.narrow(self.keys).order_by("pk")
        found = list_keys(ahead[window - 1 : window])
        return found[0] if found else None

    def find_largest(self, keys: KeyRange) -> Any:
        """Return the largest key of the table in a range, or None if it has none there; not on document stores."""
        columns = [F(field.attname).desc() for field in get_key_fields(self.keys.model)]
        found = list_keys(keys.narrow(self.keys).order_by(*columns)[:1])
        return found[0] if found else None

    def read_keys(self, keys: KeyRange, limit: int, *, lock: bool = False, is_counted: bool = False) -> Reading:
        """Return the keys of at most ``limit`` matching rows, in order; arguments as ``read_objects``."""
        if lock:
            reading = self._lock_rows(keys, limit, lambda rows, _: list_keys(rows), lambda key: key, is_counted)
            return reading._replace(rows=list(dict.fromkeys(reading.rows)))
        values = list_keys(self._find_keys(keys)[:limit])
        return Reading(list(dict.fromkeys(values)), values[-1] if values else None, len(values) >= limit)

    def read_objects(self, keys: KeyRange, limit: int, *, lock: bool = False, is_counted: bool = False) -> Reading:
        """Return at most ``limit`` matching objects, in order, each once although a join may repeat it.

        Args:
            keys: Where to look.
            limit: How many at most; of locked ones a few more, if the site inserted them a moment ago.
            lock: Whether to lock them; to be called in a transaction.
            is_counted: Whether the range ends with a key that ``find_window_end`` has found, and holds no more than
                ``limit`` keys.
        """
        if lock:
            is_counted = is_counted and not self.arranges
            return self._lock_rows(keys, limit, self._list_objects, lambda obj: obj.pk, is_counted)
        if self.arranges:
            reading = self.read_keys(keys, limit)
            if not reading.rows:
                return reading
            found = KeyRange(keys.after, reading.last).narrow(self.queryset).order_by("pk")
            return reading._replace(rows=self._list_objects(found, reading.rows))
        rows = list(keys.narrow(self.queryset).order_by("pk")[:limit])
        return Reading(list({row.pk: row for row in rows}.values()), rows[-1].pk if rows else None, len(rows) >= limit)

    def read_listed(self, values: list[Any], *, lock: bool = False) -> list[Any]:
        """Return the matching objects that have one of these keys, in order; locked if asked for."""
        if lock:
            values = lock_rows(self.queryset.model, values, self.alias)
        return self._list_objects(self._select(values).order_by("pk"), values)

    def _lock_rows(
        self, keys: KeyRange, limit: int, read: _Read, get_key: Callable[[Any], Any], is_counted: bool
    ) -> Reading:
        """Lock the rows of a batch and read them, and tell how far it looked.

        PostgreSQL returns a row that it had to wait for in its old place, but as it is by then: with another key, if
        the site has changed it (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED). So
        the cursor comes from a look that locks nothing, and the rows that are locked lie between the old cursor and
        the new one. If one of those that were seen is not among them, it may have another key: then the batch ends at
        the last key that was seen, behind which the row is met in its turn, and the keys up to there are read again.
        """
        if is_counted and self.locks_ranges:
            return Reading(read(self._lock_query(keys.narrow(self.queryset)), []), keys.upto, is_full=False)
        reading = self.read_keys(keys, limit)
        within, wanted = KeyRange(keys.after, reading.last), reading.rows
        # A list that is long is slower than the range, of which most rows match then.
        is_dense = len(wanted) > limit // 2
        rows: list[Any] = []
        tried: set[Any] = set()
        while not tried.issuperset(wanted):
            rows = read(self._find_locked(within, wanted, is_dense=is_dense), wanted)
            locked = set(map(get_key, rows))
            if locked.issuperset(wanted):
                break
            reading = reading._replace(is_full=True)
            tried |= locked.union(wanted)
            wanted = list(dict.fromkeys(list_keys(self._find_keys(within))))
        return reading._replace(rows=rows)

    def _find_locked(self, keys: KeyRange, wanted: Sequence[Any], *, is_dense: bool) -> QuerySet[Any]:
        if not self._locks_itself:
            # GROUP BY cannot be locked, and a child's row lies in two tables: so lock first, read afterwards.
            return self._select(lock_rows(self.queryset.model, wanted, self.alias)).order_by("pk")
        return self._lock_query(keys.narrow(self.queryset if is_dense else self._select(wanted)))

    def _find_keys(self, keys: KeyRange) -> QuerySet[Any]:
        return keys.narrow(self.queryset).select_related(None).order_by("pk")

    def _list_objects(self, rows: QuerySet[Any], keys: Sequence[Any]) -> list[Any]:
        return list_objects(rows, keys, arranges=self.arranges)

    def _lock_query(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return lock_query(rows.order_by("pk"))

    def select_batch(self, values: list[Any]) -> QuerySet[Any]:
        """Return the rows of a batch as a queryset, for statements of the author's own.

        Args:
            values: The keys that ``read_keys`` returned, at least one.
        """
        # On SQLite nobody else writes while we do: then the range holds the same rows, and takes two parameters.
        return self._select_range(values) if connections[self.alias].vendor == "sqlite" else self._select(values)

    def count_matching(self, values: list[Any]) -> int:
        """Return how many of these keys' rows the queryset finds; arguments as ``select_batch``."""
        if not self._select_range(values).exists():  # nearly always, and quicker asked than for each key
            return 0
        chunks = chunk_keys(self.queryset.model, values, connections[self.alias])
        return sum(len(set(list_keys(self._select(chunk)))) for chunk in chunks)

    def check_readable(self, key: str) -> None:
        """Raise InvalidDefinition if a document store cannot read the queryset in the order of its keys.

        Args:
            key: The migration's key, for the message.
        """
        if not is_document_store(self.alias):
            return
        try:
            for first in list_keys(self.queryset.order_by("pk")[:1]):
                list_keys(KeyRange(first, None).narrow(self.queryset).order_by("pk")[:1])
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

    @property
    def locks_ranges(self) -> bool:
        """Whether one query can lock the rows of a range, none of which it repeats."""
        return self._locks_itself and len(self.queryset.query.alias_map) <= 1

    @property
    def _locks_itself(self) -> bool:
        model = self.queryset.model
        return not self.is_grouped and not model._meta.parents and not has_schema(model)
