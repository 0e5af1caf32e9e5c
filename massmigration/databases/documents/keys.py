"""Reads nothing but keys from a document store: the first ones of a range, or a random sample."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError, connections
from django.db.models import QuerySet

from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.ranges import KeyRange


class StoreKeys:
    """The keys of a queryset's rows, in the order of the store.

    Args:
        queryset: Rows of one model on Datastore or Firestore, in no order.
        keys: The range that is looked at; None is all.
    """

    def __init__(self, queryset: QuerySet[Any], keys: KeyRange | None = None) -> None:
        self.queryset = queryset.order_by("pk")
        self.range = keys or KeyRange(None, None)
        self.connection = connections[queryset.db]
        self.query_count = 0

    @property
    def pads_integers(self) -> bool:
        """Whether integers are stored as text with leading zeros: on Firestore, where all keys are text."""
        return bool(self.connection.key_property_name() == "__name__")  # type: ignore[attr-defined]

    def read(self, after: Any, upto: Any, limit: int) -> list[Any]:
        """Return the first keys of a range, in one query.

        Args:
            after: Where it begins (not included); None is the beginning of all that is looked at.
            upto: Where it ends (included); None is the end of all that is looked at.
            limit: How many keys at most.
        """
        keys = KeyRange(self.range.after if after is None else after, self.range.upto if upto is None else upto)
        return self._fetch(keys.narrow(self.queryset), limit)

    def sample(self, limit: int) -> list[Any]:
        """Return keys picked at random out of the whole table, in no order; none where that is not to be had.

        Datastore gives about one row in 130 a hidden property ``__scatter__`` with a random value
        (https://github.com/GoogleCloudPlatform/appengine-mapreduce/wiki/ScatterPropertyImplementation). Together with a
        filter it would need another index.
        """
        if self.pads_integers or self.queryset.query.where:
            return []
        try:
            return self._fetch(self.queryset, limit, order="__scatter__")
        except DatabaseError:  # an index or a mode without it
            return []

    def _fetch(self, rows: QuerySet[Any], limit: int, order: str = "") -> list[Any]:
        """Run one query for keys only; with two conditions the connectors would read the rows as well."""
        field = get_key_fields(rows.model)[0]
        self.query_count += 1
        self.connection.ensure_connection()
        with self.connection.wrap_database_errors:
            try:
                found = self.connection.transform_django_query(rows.query, True)  # type: ignore[attr-defined]
            except EmptyResultSet:  # none(), or one of no values
                return []
            if order and any(branch.filters for branch in found.queries):  # a child's rows lie among its parent's
                return []
            found.only_return_keys = True
            for branch in found.queries:
                branch.only_return_keys = True
            if order:
                found.order_by([order])
            return [field.to_python(entity.key().id_or_name) for entity in found.fetch(None, limit)]
