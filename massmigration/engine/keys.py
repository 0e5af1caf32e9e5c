"""Kinds of primary keys, as a table: how a key becomes text and back, and whether its range can be cut by arithmetic.

Cursors and bounds are stored as text. Every kind comes back exactly as it went in: microseconds, decimals, bytes. Order
is the database's business: only integers and UUIDs, which every SQL database orders as Python does, are compared here.
"""

from __future__ import annotations

import base64
import datetime
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connections, models

from massmigration.engine.keyfilters import get_key_fields
from massmigration.exceptions import InvalidDefinition

SQLITE_DECIMAL_DIGITS: Final = 15
"""SQLite keeps decimals as floating point: more digits come back changed (https://www.sqlite.org/datatype3.html)."""


class KeyKind(NamedTuple):
    """One kind of key.

    Attributes:
        name: What it is called in messages.
        fields: Names of Django's field types, as ``Field.get_internal_type()`` returns them.
        python_type: The type that values have in Python.
        encode: From a value to a JSON scalar.
        decode: From a JSON scalar to the value.
        to_integer: To a number in the same order, if the range can be cut by arithmetic, else None.
        from_integer: Back from that number.
    """

    name: str
    fields: tuple[str, ...]
    python_type: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    to_integer: Callable[[Any], int] | None = None
    from_integer: Callable[[int], Any] | None = None


def _identity(value: Any) -> Any:
    return value


def _to_microseconds(value: datetime.timedelta) -> int:
    return (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds


def _from_microseconds(value: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=value)


def _encode_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


KINDS: Final = (
    KeyKind(
        "integer",
        (
            "AutoField",
            "BigAutoField",
            "SmallAutoField",
            "IntegerField",
            "BigIntegerField",
            "SmallIntegerField",
            "PositiveIntegerField",
            "PositiveBigIntegerField",
            "PositiveSmallIntegerField",
        ),
        int,
        _identity,
        _identity,
        _identity,
        _identity,
    ),
    KeyKind(
        "UUID",
        ("UUIDField",),
        uuid.UUID,
        lambda value: value.hex,
        uuid.UUID,
        lambda value: value.int,
        lambda value: uuid.UUID(int=value),
    ),
    KeyKind(
        "string",
        ("CharField", "TextField", "SlugField", "GenericIPAddressField", "FilePathField"),
        str,
        _identity,
        _identity,
    ),
    KeyKind("decimal", ("DecimalField",), Decimal, str, Decimal),
    KeyKind("float", ("FloatField",), float, _identity, _identity),
    KeyKind(
        "date and time",
        ("DateTimeField",),
        datetime.datetime,
        lambda value: value.isoformat(),
        datetime.datetime.fromisoformat,
    ),
    KeyKind("date", ("DateField",), datetime.date, lambda value: value.isoformat(), datetime.date.fromisoformat),
    KeyKind("time", ("TimeField",), datetime.time, lambda value: value.isoformat(), datetime.time.fromisoformat),
    KeyKind("duration", ("DurationField",), datetime.timedelta, _to_microseconds, _from_microseconds),
    KeyKind("bytes", ("BinaryField",), bytes, _encode_bytes, base64.b64decode),
)

_BY_FIELD: Final = {field: kind for kind in KINDS for field in kind.fields}


class KeyCodec:
    """Turns the primary keys of one model into text and back.

    Args:
        model: The model whose rows are migrated.

    Raises:
        InvalidDefinition: The key is of a kind that cannot be kept exactly.
    """

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        pk_fields = get_key_fields(model)
        self.is_composite = len(pk_fields) > 1
        self.kinds = [_get_kind(model, field) for field in pk_fields]

    def encode(self, value: Any) -> str:
        """Return the text of a primary key, as ``obj.pk`` or ``values_list("pk")`` gives it."""
        parts = value if self.is_composite else (value,)
        encoded = [self._encode_part(kind, part) for kind, part in zip(self.kinds, parts, strict=True)]
        return json.dumps(encoded if self.is_composite else encoded[0])

    def decode(self, text: str) -> Any:
        """Return the primary key whose text this is."""
        value = json.loads(text)
        if not self.is_composite:
            return self.kinds[0].decode(value)
        return tuple(kind.decode(part) for kind, part in zip(self.kinds, value, strict=True))

    @property
    def can_compute(self) -> bool:
        """Whether a range of keys can be cut by arithmetic."""
        return not self.is_composite and self.kinds[0].to_integer is not None

    def split(self, smallest: Any, largest: Any, count: int) -> list[Any]:
        """Return at most ``count - 1`` keys that cut ``smallest``…``largest`` into equal ranges.

        Args:
            smallest: A key at or below the first row.
            largest: A key at or above the last row.
            count: Number of ranges, at least 1.

        Returns:
            Upper bounds (inclusive) of all ranges but the last, rising. The keys need not exist.
        """
        kind = self.kinds[0]
        assert kind.to_integer is not None
        assert kind.from_integer is not None
        low, high = kind.to_integer(smallest), kind.to_integer(largest)
        width = high - low + 1
        bounds = {low + width * number // count - 1 for number in range(1, count)}
        return [kind.from_integer(bound) for bound in sorted(bounds) if low <= bound < high]

    def _encode_part(self, kind: KeyKind, part: Any) -> Any:
        if isinstance(part, memoryview):
            part = bytes(part)
        if not isinstance(part, kind.python_type) or isinstance(part, bool):
            raise InvalidDefinition(
                f"A primary key of {self.model._meta.label} is {part!r}, but its field makes keys of the kind "
                f"'{kind.name}'. Keys have to be of the field's own Python type."
            )
        return kind.encode(part)


def _get_target(field: Any) -> Any:
    while field.remote_field is not None:  # a multi-table child, or a one-to-one key
        field = field.target_field
    return field


def _get_kind(model: type[models.Model], field: Any) -> KeyKind:
    field = _get_target(field)
    kind = _BY_FIELD.get(field.get_internal_type())
    if kind is None:
        raise InvalidDefinition(
            f"The primary key of {model._meta.label} is a {type(field).__name__}, which cannot be gone through by "
            f"ranges. Kinds that can: {', '.join(kind.name for kind in KINDS)}. Use a CustomMigration instead."
        )
    return kind


def check_key(codec: KeyCodec, db_alias: str) -> None:
    """Raise InvalidDefinition if this database does not give the model's keys back exactly.

    Args:
        codec: The model's codec.
        db_alias: The database.
    """
    if connections[db_alias].vendor != "sqlite":
        return
    for field in map(_get_target, get_key_fields(codec.model)):
        if isinstance(field, models.DecimalField) and (field.max_digits or 99) > SQLITE_DECIMAL_DIGITS:
            raise InvalidDefinition(
                f"The primary key of {codec.model._meta.label} has {field.max_digits} decimal digits, but SQLite keeps "
                f"only {SQLITE_DECIMAL_DIGITS} exactly. Use a CustomMigration, or another database."
            )
