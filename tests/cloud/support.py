"""What the tests of the engine on Datastore and Firestore share: rows, definitions, and a look at what is sent."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from django.apps import apps
from google.cloud.datastore_v1.services.datastore import DatastoreClient
from google.cloud.firestore_v1.services.firestore import FirestoreClient

from massmigration import MapperMigration
from massmigration.definitions.base import BaseMigration
from tests.cloud.app.models import Row
from tests.cloud.filling import store

KEY_NAMES = ("__key__", "__name__")
EQUAL = {"EQUAL", "IN"}


def make_rows(db_alias: str, count: int, **fields: Any) -> None:
    """Store rows that are called ``row 0`` and so on."""
    store((Row(name=f"row {number}", **fields) for number in range(count)), db_alias)


def get_visits(db_alias: str, model: type = Row) -> dict[int, int]:
    """Return how many rows there are for each number of visits."""
    return dict(Counter(row.visits for row in model.objects.using(db_alias)))


def make(definition: type[BaseMigration], name: str = "0001_test", **attributes: Any) -> Any:
    """Return an instance, as the loader would make it, of a definition with these attributes."""
    return type("Migration", (definition,), attributes)("cloudapp", name)


class Visit(MapperMigration):
    """Counts visits; the engine writes.

    With ``quick`` the engine would choose batches of one row, and tests would pay a transaction for each.
    """

    batch_size: int | None = 20
    update_fields = ["visits"]
    model: Any = Row

    def get_queryset(self, db_alias):
        return self.model.objects.using(db_alias)

    def operation(self, row, db_alias):
        row.visits += 1


class Save(Visit):
    """Counts visits; the operation saves."""

    update_fields = ()

    def operation(self, row, db_alias):
        row.visits += 1
        row.save(using=db_alias, force_update=True)


class Query(NamedTuple):
    """One query as it was sent."""

    kind: str
    filters: list[tuple[str, str]]
    order: list[tuple[str, str]]
    projection: list[str]

    def find_index(self) -> str | None:
        """Return what index the query needs besides those that both databases make by themselves, if any.

        Those are one for each property that is not excluded, with the key as its second part; several of them are
        merged where all of them are asked for equal values:
        https://cloud.google.com/datastore/docs/concepts/indexes and
        https://cloud.google.com/firestore/docs/query-data/index-overview.
        """
        equal = [name for name, operator in self.filters if operator in EQUAL and name not in KEY_NAMES]
        compared = {name for name, operator in self.filters if operator not in EQUAL} - set(KEY_NAMES)
        is_by_key = all(name in KEY_NAMES and direction == "ASCENDING" for name, direction in self.order)
        if compared or not is_by_key or self.projection:
            return f"a composite index: {self}"
        excluded = sorted(set(equal) - _get_indexed(self.kind)) if equal else []
        return f"an index on {excluded}, which are excluded: {self}" if excluded else None


def _get_indexed(table: str) -> set[str]:
    """Return the columns that the connectors index: with one explicit index the others are excluded."""
    model = next(model for model in apps.get_models() if model._meta.db_table == table)
    explicit = {str(field.column) for field in model._meta.concrete_fields if field.db_index or field.unique}
    if explicit > {model._meta.pk.column}:
        return explicit
    return {str(field.column) for field in model._meta.concrete_fields}


@dataclass
class Traffic:
    """What was sent to Datastore and Firestore by this process: queries, and writes that were committed."""

    queries: list[Query] = field(default_factory=list)
    writes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def find_indexes(self) -> list[str]:
        """Return each index that some query needs and nobody declares."""
        return sorted({index for query in self.queries if (index := query.find_index())})

    def get_busiest(self, seconds: float) -> tuple[int, str]:
        """Return the most writes of one entity within so many seconds, and the entity's key."""
        most = (0, "")
        for key, moments in self.writes.items():
            for number, moment in enumerate(moments):
                count = sum(later < moment + seconds for later in moments[number:])
                most = max(most, (count, key))
        return most


@contextmanager
def watch_traffic() -> Iterator[Traffic]:
    """Note what Google's clients send; they send it as ever."""
    traffic = Traffic()
    spies = [
        (DatastoreClient, "run_query", lambda request: traffic.queries.append(_read_datastore(request["query"]))),
        (FirestoreClient, "run_query", lambda request: traffic.queries.append(_read_firestore(request))),
    ]
    committers = [(DatastoreClient, _list_mutations), (FirestoreClient, _list_writes)]
    with pytest.MonkeyPatch.context() as patch:
        for client, name, note in spies:
            patch.setattr(client, name, _spy(getattr(client, name), before=note))
        for client, list_keys in committers:

            def note_commit(request: Any, list_keys: Any = list_keys) -> None:
                now = time.monotonic()
                for key in list_keys(request):
                    traffic.writes[key].append(now)

            patch.setattr(client, "commit", _spy(client.commit, after=note_commit))
        yield traffic


def _spy(method: Any, before: Any = None, after: Any = None) -> Any:
    def call(self: Any, request: Any = None, **options: Any) -> Any:
        if before:
            before(request)
        answer = method(self, request=request, **options)
        if after:
            after(request)
        return answer

    return call


def _read_datastore(query: Any) -> Query:
    query = getattr(query, "_pb", query)
    found = _flatten(query.filter, "property") if query.HasField("filter") else []
    order = [(part.property.name, _get_word(part, "direction")) for part in query.order]
    projection = [part.property.name for part in query.projection if part.property.name not in KEY_NAMES]
    return Query(query.kind[0].name if query.kind else "", found, order, projection)


def _read_firestore(request: Any) -> Query:
    query = request["structured_query"]
    query = getattr(query, "_pb", query)
    found = _flatten(query.where, "field") if query.HasField("where") else []
    order = [(part.field.field_path, _get_word(part, "direction")) for part in query.order_by]
    return Query(query.from_[0].collection_id, found, order, [])  # fields are chosen from whole documents there


def _flatten(node: Any, what: str) -> list[tuple[str, str]]:
    """Return property and operator of each part of a filter."""
    kind = node.WhichOneof("filter_type")
    part = getattr(node, kind)
    if kind == "composite_filter":
        return [pair for child in part.filters for pair in _flatten(child, what)]
    name = getattr(part, what)
    return [(getattr(name, "name", None) or name.field_path, _get_word(part, "op"))]


def _get_word(message: Any, field_name: str) -> str:
    """Return the name of an enumeration's value."""
    values = message.DESCRIPTOR.fields_by_name[field_name].enum_type.values_by_number
    return str(values[getattr(message, field_name)].name)


def _list_mutations(request: Any) -> list[str]:
    keys = []
    for wrapped in request["mutations"]:
        mutation = getattr(wrapped, "_pb", wrapped)
        operation = getattr(mutation, mutation.WhichOneof("operation"))
        path = getattr(operation, "key", operation).path[-1]
        keys.append(f"{path.kind} {path.name or path.id}")
    return keys


def _list_writes(request: Any) -> list[str]:
    keys = []
    for wrapped in request["writes"]:
        write = getattr(wrapped, "_pb", wrapped)
        name = write.update.name if write.WhichOneof("operation") == "update" else write.delete
        keys.append(" ".join(name.split("/")[-2:]))
    return keys


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    """Let each batch take a moment only; the pause between two of them is as long."""
    settings.MASSMIGRATION_BATCH_SECONDS = 0.01


@pytest.fixture(autouse=True)
def traffic() -> Iterator[Traffic]:
    """Watch what each test sends; after it, no query of it may need an index that is not there by itself."""
    with watch_traffic() as seen:
        yield seen
    assert seen.find_indexes() == []
