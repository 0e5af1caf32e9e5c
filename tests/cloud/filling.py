"""Stores some thousand rows in a second, where ``bulk_create`` would look up each key before."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import connections
from google.cloud import datastore


def store_rows(model: type[Any], keys: Iterable[Any], db_alias: str, **values: Any) -> None:
    """Store a row for each of these keys, all with the same values."""
    connection = connections[db_alias]
    connection.ensure_connection()
    client = connection.connection._client
    row = {field.column: field.get_default() for field in model._meta.fields if not field.primary_key} | values
    ids = [key.hex if isinstance(key, uuid.UUID) else key for key in keys]
    for start in range(0, len(ids), 400):
        batch = client.batch()
        if db_alias == "datastore":
            batch.begin()
        for key in ids[start : start + 400]:
            native = connection.to_native_key(connection.connection.new_key(model._meta.db_table, key))
            if db_alias == "datastore":
                entity = datastore.Entity(native)
                entity.update(row)
                batch.put(entity)
            else:
                batch.set(native, row)
        batch.commit()


def make_automatic(db_alias: str, count: int) -> list[int]:
    """Return keys as the connectors give them to rows that have none."""
    return [connections[db_alias].generate_id(int) for _ in range(count)]
