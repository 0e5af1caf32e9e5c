"""Types of primary keys, as a table: how a key becomes text and back, and whether its range can be cut by arithmetic.

Cursors and bounds are stored as text. Every type comes back exactly as it went in: microseconds, decimals, bytes. Order
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

from django.db import models

from massmigration.databases.keyfilters import get_key_fields
from massmigration.exceptions import InvalidDefinition


def _identity(value: Any) -> Any:
    return value


class KeyType(NamedTuple):
    """One type of key.

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
    encode: Callable[[Any], Any] = _identity
    decode: Callable[[Any], Any] = _identity
    to_integer: Callable[[Any], int] | None = None
    from_integer: Callable[[int], Any] | None = None


def _to_microseconds(value: datetime.timedelta) -> int:
    return (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds


def _from_microseconds(value: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=value)


def _encode_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _to_iso(value: datetime.date | datetime.time) -> str:
    return value.isoformat()


_INTEGERS: Final = (
    "AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField",
    "PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField",
)  # fmt: skip
_TEXTS: Final = ("CharField", "TextField", "SlugField", "GenericIPAddressField", "FilePathField")

KEY_TYPES: Final = (
    KeyType("integer", _INTEGERS, int, to_integer=_identity, from_integer=_identity),
    KeyType(
        "UUID",
        ("UUIDField",),
        uuid.UUID,
        encode=lambda value: value.hex,
        decode=uuid.UUID,
        to_integer=lambda value: value.int,
        from_integer=lambda value: uuid.UUID(int=value),
    ),
    KeyType("string", _TEXTS, str),
    KeyType("decimal", ("DecimalField",), Decimal, str, Decimal),
    KeyType("float", ("FloatField",), float),
    KeyType("date and time", ("DateTimeField",), datetime.datetime, _to_iso, datetime.datetime.fromisoformat),
    KeyType("date", ("DateField",), datetime.date, _to_iso, datetime.date.fromisoformat),
    KeyType("time", ("TimeField",), datetime.time, _to_iso, datetime.time.fromisoformat),
    KeyType("duration", ("DurationField",), datetime.timedelta, _to_microseconds, _from_microseconds),
    KeyType("bytes", ("BinaryField",), bytes, _encode_bytes, base64.b64decode),
)

_CONVERSIONS: Final = (
    "get_internal_type", "db_type", "rel_db_type", "cast_db_type", "db_parameters", "get_prep_value",
    "get_db_prep_value", "get_db_prep_save", "from_db_value", "get_db_converters", "to_python", "pre_save",
    "get_placeholder", "select_format", "get_lookup", "get_transform",
)  # fmt: skip
"""Methods of a field that decide what its column holds and how it is compared."""

REFERENCE_SAMPLE: Final = 100

_BY_FIELD: Final = {field: key_type for key_type in KEY_TYPES for field in key_type.fields}


class KeyCodec:
    """Turns the primary keys of one model into text and back.

    Args:
        model: The model whose rows are migrated.

    Raises:
        InvalidDefinition: The key is of a type that cannot be kept exactly.
    """

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        pk_fields = get_key_fields(model)
        self.is_composite = len(pk_fields) > 1
        self.types = [_get_type(model, field) for field in pk_fields]

    def encode(self, value: Any) -> str:
        """Return the text of a primary key, as ``obj.pk`` or ``values_list("pk")`` gives it."""
        parts = value if self.is_composite else (value,)
        encoded = [self._encode_part(key_type, part) for key_type, part in zip(self.types, parts, strict=True)]
        return json.dumps(encoded if self.is_composite else encoded[0])

    def decode(self, text: str) -> Any:
        """Return the primary key whose text this is."""
        value = json.loads(text)
        if not self.is_composite:
            return self.types[0].decode(value)
        return tuple(key_type.decode(part) for key_type, part in zip(self.types, value, strict=True))

    @property
    def is_plain(self) -> bool:
        """Whether columns hold the keys as Django's own fields store them, so that their order is the values'."""
        return all(map(is_plain_field, map(get_target, get_key_fields(self.model))))

    @property
    def can_compute(self) -> bool:
        """Whether a range of keys can be cut by arithmetic, where the database orders them by their numbers."""
        return not self.is_composite and self.types[0].to_integer is not None and self.is_plain

    def split(self, smallest: Any, largest: Any, count: int) -> list[Any]:
        """Return at most ``count - 1`` keys that cut ``smallest``…``largest`` into equal ranges.

        Args:
            smallest: A key at or below the first row.
            largest: A key at or above the last row.
            count: Number of ranges, at least 1.

        Returns:
            Upper bounds (inclusive) of all ranges but the last, rising. The keys need not exist.
        """
        key_type = self.types[0]
        assert key_type.to_integer is not None
        assert key_type.from_integer is not None
        low, high = key_type.to_integer(smallest), key_type.to_integer(largest)
        width = high - low + 1
        bounds = {low + width * number // count - 1 for number in range(1, count)}
        return [key_type.from_integer(bound) for bound in sorted(bounds) if low <= bound < high]

    def _encode_part(self, key_type: KeyType, part: Any) -> Any:
        if isinstance(part, memoryview):
            part = bytes(part)
        if not isinstance(part, key_type.python_type) or isinstance(part, bool):
            raise InvalidDefinition(
                f"A primary key of {self.model._meta.label} is {part!r}, but its field makes keys of the type "
                f"'{key_type.name}'. Keys have to be of the field's own Python type."
            )
        return key_type.encode(part)


def is_plain_field(field: Any) -> bool:
    """Return whether nothing between a field's values and its column is custom code."""
    return all(
        getattr(getattr(field, name), "__func__", int).__module__.startswith("django.db.models.")
        for name in _CONVERSIONS
        if hasattr(field, name)
    )


def get_target(field: Any) -> Any:
    """Return the field that a reference ends at: of a multi-table child, or of a one-to-one key."""
    while field.remote_field is not None:
        field = field.target_field
    return field


def _get_type(model: type[models.Model], field: Any) -> KeyType:
    field = get_target(field)
    key_type = _BY_FIELD.get(field.get_internal_type())
    if key_type is None:
        raise InvalidDefinition(
            f"The primary key of {model._meta.label} is a {type(field).__name__}, which cannot be gone through by "
            f"ranges. Types that can: {', '.join(known.name for known in KEY_TYPES)}. Use a CustomMigration instead."
        )
    return key_type


def check_reference(model: type[models.Model], db_alias: str) -> None:
    """Raise InvalidDefinition for a reference to a key that its field changes each time it is prepared.

    For a reference, Django's comparisons prepare a value twice (``RelatedLookupMixin.get_prep_lookup``), so that rows
    would be looked for at other keys than theirs.
    """
    (field, *others) = get_key_fields(model)
    target = get_target(field)
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
