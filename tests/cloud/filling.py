"""Stores some thousand rows in a second, where ``bulk_create`` would look up each key before."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connections, models
from gcloudc.db.backends.common.helpers import get_prepared_db_value, model_fields_to_exclude_from_indexes
from google.cloud import datastore


def store_rows(model: type[Any], keys: Iterable[Any], db_alias: str, **values: Any) -> None:
    """Store a row for each of these keys, all with the same values."""
    row = {field.column: field.get_default() for field in model._meta.fields if not field.primary_key} | values
    ids = [key.hex if isinstance(key, uuid.UUID) else key for key in keys]
    _store(model, dict.fromkeys(ids, row), db_alias)


def store(instances: Iterable[models.Model], db_alias: str) -> None:
    """Store these instances, all of one model, as the connector would; who has no key is given one, as from it."""
    connection = connections[db_alias]
    rows = {}
    model: type[models.Model] = models.Model
    for instance in instances:
        model = type(instance)
        if instance.pk is None:
            instance.pk = connection.generate_id(int)
        row = {field.column: get_prepared_db_value(connection, instance, field) for field in model._meta.fields}
        rows[row.pop(model._meta.pk.column)] = row
    _store(model, rows, db_alias)


def _store(model: type[models.Model], rows: Mapping[Any, Mapping[str, Any]], db_alias: str) -> None:
    """Store rows by their keys, both as the store has them, in few requests."""
    connection = connections[db_alias]
    connection.ensure_connection()
    client = connection.connection._client
    excluded = model_fields_to_exclude_from_indexes(connection, model) if rows else []
    ids = list(rows)
    for start in range(0, len(ids), 400):
        batch = client.batch()
        if db_alias == "datastore":
            batch.begin()
        for key in ids[start : start + 400]:
            native = connection.to_native_key(connection.connection.new_key(model._meta.db_table, key))
            if db_alias == "datastore":
                entity = datastore.Entity(native, exclude_from_indexes=excluded)
                entity.update(rows[key])
                batch.put(entity)
            else:
                batch.set(native, rows[key])
        batch.commit()


def make_automatic(db_alias: str, count: int) -> list[int]:
    """Return keys as the connectors give them to rows that have none."""
    return [connections[db_alias].generate_id(int) for _ in range(count)]
