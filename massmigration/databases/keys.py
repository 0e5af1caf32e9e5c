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

from massmigration.databases.keyfilters import get_key_fields
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

_CONVERSIONS: Final = (
    "get_internal_type", "db_type", "rel_db_type", "cast_db_type", "db_parameters", "get_prep_value",
    "get_db_prep_value", "get_db_prep_save", "from_db_value", "get_db_converters", "to_python", "pre_save",
    "get_placeholder", "select_format", "get_lookup", "get_transform",
)  # fmt: skip
"""Methods of a field that decide what its column holds and how it is compared."""

REFERENCE_SAMPLE: Final = 100

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
    def is_plain(self) -> bool:
        """Whether columns hold the keys as Django's own fields store them, so that their order is the values'."""
        return all(map(is_plain_field, map(_get_target, get_key_fields(self.model))))

    def can_compute(self, vendor: str) -> bool:
        """Return whether a range of keys can be cut by arithmetic.

        Args:
            vendor: The database's, as Django names it.
        """
        if self.is_composite or self.kinds[0].to_integer is None or not self.is_plain:
            return False
        # MariaDB orders its own UUID type by the last bytes first (https://mariadb.com/docs/server/reference/data-types/
        # string-data-types/uuid-data-type).
        return self.kinds[0].python_type is int or vendor in ("postgresql", "sqlite")

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


def is_plain_field(field: Any) -> bool:
    """Return whether nothing between a field's values and its column is an author's own."""
    return all(
        getattr(getattr(field, name), "__func__", int).__module__.startswith("django.db.models.")
        for name in _CONVERSIONS
        if hasattr(field, name)
    )


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
    _check_reference(codec.model, db_alias)
    if connections[db_alias].vendor != "sqlite":
        return
    for field in map(_get_target, get_key_fields(codec.model)):
        if isinstance(field, models.DecimalField) and (field.max_digits or 99) > SQLITE_DECIMAL_DIGITS:
            raise InvalidDefinition(
                f"The primary key of {codec.model._meta.label} has {field.max_digits} decimal digits, but SQLite keeps "
                f"only {SQLITE_DECIMAL_DIGITS} exactly. Use a CustomMigration, or another database."
            )


def _check_reference(model: type[models.Model], db_alias: str) -> None:
    """Refuse a reference to a key that its field changes each time it is prepared.

    For a reference, Django's comparisons prepare a value twice (``RelatedLookupMixin.get_prep_lookup``), so that rows
    would be looked for at other keys than theirs.
    """
    (field, *others) = get_key_fields(model)
    target = _get_target(field)
    if others or target is field or is_plain_field(target):
        return
    rows: models.QuerySet[Any] = models.QuerySet(model, using=db_alias)
    for (key,) in rows.order_by("pk").values_list("pk")[:REFERENCE_SAMPLE]:
        prepared = target.get_prep_value(key)
        if target.get_prep_value(prepared) != prepared:
            raise InvalidDefinition(
                f"The primary key of {model._meta.label} refers to a {type(target).__name__}, whose get_prep_value() "
                "changes what it has prepared already. Django compares such references with wrong values, so that rows "
                "would be skipped. Let get_prep_value() leave prepared values alone, or use a CustomMigration."
            )
