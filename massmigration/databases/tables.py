"""The rows of an author's queryset, read in windows of keys, and locked where the database can do that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from massmigration.databases.keyfilters import is_among, is_from, is_upto
from massmigration.databases.keys import KeyCodec
from massmigration.databases.locking import has_schema, list_keys, lock_query, lock_rows
from massmigration.databases.ranges import KeyRange, find_window_end, get_all_rows
from massmigration.databases.registry import get_database
from massmigration.exceptions import InvalidDefinition

_Read = Callable[[QuerySet[Any], Sequence[Any]], list[Any]]


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
        self.database = get_database(self.alias)
        self.codec = KeyCodec(queryset.model)
        # Each row is visited once whatever the joins do, and DISTINCT cannot be locked: so it is left out.
        self.queryset = queryset.order_by()
        self.queryset.query.distinct = False
        # Rows are locked by the engine, batch by batch: skip_locked would skip rows, and nowait blame them.
        self.wants_locks = bool(queryset.query.select_for_update)
        self.queryset.query.select_for_update = False
        self.queryset.query.standard_ordering = True  # reverse() would turn the order of the keys as well
        if self.database.reads_whole_rows:
            self.queryset = self.queryset.defer(None).select_related(None)
        is_whole = not queryset.query.where and not queryset.query.annotations
        self.has_windows = not is_whole and self.database.can_skip_rows
        self.is_grouped = queryset.query.group_by is not None
        self.arranges = _has_own_iteration(queryset)
        self.keys = get_all_rows(queryset)

    def find_window_end(self, keys: KeyRange, window: int) -> Any:
        """Return the key at which a window of this many keys of the whole table ends; None if the range ends before."""
        return find_window_end(self.keys, keys, window)

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
        """Return the matching objects that have one of these keys, in order; locked if asked for.

        Args:
            values: The keys; in any order if they are not to be locked.
            lock: Whether to lock the rows.
        """
        if lock:
            values = lock_rows(self.queryset.model, values, self.alias)
        return self._list_objects(self._select(values, in_order=lock or len(values) == 1).order_by("pk"), values)

    def _lock_rows(
        self, keys: KeyRange, limit: int, read: _Read, get_key: Callable[[Any], Any], is_counted: bool
    ) -> Reading:
        """Lock the rows of a batch and read them, and tell how far it looked.

        PostgreSQL returns a row that it had to wait for in its old place, but as it is by then: with another key, if
        the site has changed it (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED). So
        the cursor comes from a look that locks nothing, and the rows that are locked lie between the old cursor and
        the new one. If one of those that were seen is not among them, it may have another key: then the batch ends at
        the last key that was seen, after which the row is met in its turn, and the keys up to there are read again.
        """
        if is_counted and self.locks_ranges:
            return Reading(read(lock_query(keys.narrow(self.queryset).order_by("pk")), []), keys.upto, is_full=False)
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
        return lock_query(keys.narrow(self.queryset if is_dense else self._select(wanted)).order_by("pk"))

    def _find_keys(self, keys: KeyRange) -> QuerySet[Any]:
        return keys.narrow(self.queryset).select_related(None).order_by("pk")

    def _list_objects(self, rows: QuerySet[Any], keys: Sequence[Any]) -> list[Any]:
        """Return the objects of rows, in the order of their keys, each once although a join may repeat it.

        Args:
            rows: The author's queryset, narrowed down, in the order of the keys.
            keys: The keys of its rows a moment ago.

        Raises:
            InvalidDefinition: The objects that a custom class of querysets yields are not those of the rows.
        """
        objects = {getattr(obj, "pk", None): obj for obj in rows}
        if not self.arranges:
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

    def select_batch(self, values: list[Any]) -> QuerySet[Any]:
        """Return the rows of a batch as a queryset, for the author's own statements.

        Args:
            values: The keys that ``read_keys`` returned, at least one.
        """
        # Where no other connection writes while we do, the range holds the same rows, and takes two parameters.
        return self._select_range(values) if self.database.has_single_writer else self._select(values)

    def count_matching(self, values: list[Any]) -> int:
        """Return how many of these keys' rows the queryset finds; arguments as ``select_batch``."""
        if not self._select_range(values).exists():  # nearly always, and a single query is faster than one for each key
            return 0
        chunks = self.database.chunk_keys(self.queryset.model, values)
        return sum(len(set(list_keys(self._select(chunk)))) for chunk in chunks)

    def check_readable(self, key: str) -> None:
        """Raise InvalidDefinition, with the migration's key, if the rows cannot be read in the order of their keys."""
        self.database.check_readable(self.queryset, key)

    def _select_range(self, values: Sequence[Any]) -> QuerySet[Any]:
        model = self.queryset.model
        return self.queryset.filter(is_from(model, values[0]), is_upto(model, values[-1]))

    def _select(self, values: Sequence[Any], *, in_order: bool = True) -> QuerySet[Any]:
        return self.queryset.filter(is_among(self.queryset.model, values, in_order=in_order))

    @property
    def locks_ranges(self) -> bool:
        """Whether one query can lock the rows of a range, none of which it repeats."""
        return self._locks_itself and len(self.queryset.query.alias_map) <= 1

    @property
    def _locks_itself(self) -> bool:
        model = self.queryset.model
        return not self.is_grouped and not model._meta.parents and not has_schema(model)


def _has_own_iteration(queryset: QuerySet[Any]) -> bool:
    """Return whether custom code stands between the rows that the database returns and the objects."""
    if queryset._iterable_class is not ModelIterable:
        return True
    methods = (getattr(type(queryset), name) for name in ("__iter__", "__getitem__", "_fetch_all"))
    return any(not method.__module__.startswith("django.db.models.") for method in methods)
