"""Tells which columns the engine may write with custom SQL, and how a cast to their type has to look.

Its statements are many times faster than Django's, but leave out what ``Model.save()`` does for special fields:
placeholders, types that the database adapts, expressions that a field makes itself. So they are for Django's own field
classes, and for subclasses that change nothing of that. All other fields are left to Django.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field

from massmigration.databases.keys import get_target

_TEXTS: Final = (
    models.CharField, models.EmailField, models.FileField, models.FilePathField, models.ImageField, models.SlugField,
    models.TextField, models.URLField,
)  # fmt: skip
_INTEGERS: Final = (
    models.AutoField, models.BigAutoField, models.SmallAutoField, models.BigIntegerField, models.IntegerField,
    models.PositiveBigIntegerField, models.PositiveIntegerField, models.PositiveSmallIntegerField,
    models.SmallIntegerField,
)  # fmt: skip

_BINARY: Final = frozenset({"psycopg.Binary", "psycopg2.Binary"})
_INTEGER_TYPES: Final = frozenset({"builtins.int", "psycopg.Int2", "psycopg.Int4", "psycopg.Int8"})

PLAIN_TYPES: Final[dict[type[Field[Any, Any]], frozenset[str]]] = {
    **dict.fromkeys(_TEXTS, frozenset({"builtins.str"})),
    **dict.fromkeys(_INTEGERS, _INTEGER_TYPES),
    models.BinaryField: _BINARY,
    models.BooleanField: frozenset({"builtins.bool"}),
    models.DateField: frozenset({"datetime.date"}),
    models.DateTimeField: frozenset({"datetime.datetime"}),
    models.DecimalField: frozenset({"decimal.Decimal"}),
    models.DurationField: frozenset({"datetime.timedelta"}),
    models.FloatField: frozenset({"builtins.float"}),
    models.GenericIPAddressField: frozenset({"ipaddress.IPv4Address", "ipaddress.IPv6Address", "psycopg2.Inet"}),
    models.JSONField: frozenset({"psycopg.Jsonb", "django.Jsonb"}),
    models.TimeField: frozenset({"datetime.time"}),
    models.UUIDField: frozenset({"uuid.UUID"}),
}
"""Django's fields, and of which types the values are that they hand to PostgreSQL's driver: package and class."""

_REFERENCES: Final = (models.ForeignKey, models.OneToOneField)

_METHODS: Final = (
    "cast_db_type", "db_check", "db_parameters", "db_type", "db_type_parameters", "db_type_suffix",
    "get_internal_type", "get_placeholder", "get_placeholder_sql", "rel_db_type",
)  # fmt: skip
"""What decides of a column's type and of the SQL around a value."""

_VALUE_METHODS: Final = ("get_db_prep_save", "get_db_prep_value", "get_prep_value")
"""What turns a value into the driver's. They may be overridden, as long as what they return is plain."""


def is_understood(field: Field[Any, Any]) -> bool:
    """Return whether the engine's own SQL does for this field what ``Model.save()`` does."""
    if is_array(field):
        base: Field[Any, Any] = field.base_field  # type: ignore[attr-defined]
        return is_understood(base) and (is_array(base) or not _overrides(base, _VALUE_METHODS))
    while field.remote_field is not None:
        if _get_base(field) not in _REFERENCES or _overrides(field, (*_METHODS, *_VALUE_METHODS)):
            return False
        field = field.target_field  # type: ignore[attr-defined]
    return _get_base(field) in PLAIN_TYPES and not _overrides(field, _METHODS)


def is_key_understood(field: Field[Any, Any]) -> bool:
    """Return whether rows may be found by this field with the engine's own SQL."""
    exact = get_target(field).get_lookup("exact")
    is_djangos = exact is not None and exact.__module__.startswith("django.db.")
    return is_djangos and not is_array(field) and is_understood(field) and not _overrides(field, _VALUE_METHODS)


def is_array(field: Field[Any, Any]) -> bool:
    """Return whether this is exactly PostgreSQL's array field."""
    found = type(field)
    return (found.__module__, found.__name__) == ("django.contrib.postgres.fields.array", "ArrayField")


def takes_expressions(field: Field[Any, Any]) -> bool:
    """Return whether values may be put into an expression: a field that changes values itself might change that."""
    return is_understood(field) and not is_array(field) and not _overrides(field, _VALUE_METHODS)


def has_plain_values(field: Field[Any, Any], values: Sequence[Any]) -> bool:
    """Return whether an understood field has prepared such values as Django's own would hand to PostgreSQL's driver."""
    if is_array(field):
        return True
    known = PLAIN_TYPES[_get_base(get_target(field))]
    types = set(map(type, values))
    return all(each is type(None) or f"{each.__module__.partition('.')[0]}.{each.__name__}" in known for each in types)


def is_text(field: Field[Any, Any]) -> bool:
    """Return whether the column of an understood field holds text."""
    return not is_array(field) and _get_base(get_target(field)) in _TEXTS


def get_cast(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """Return the column's type without its length: a cast to ``varchar(9)`` would cut, an assignment refuses."""
    name = re.sub(r"\([^)]*\)", "", field.rel_db_type(connection) or "text")
    return re.sub(r"^char\b", "bpchar", name)


def _get_base(field: Any) -> Any:
    """Return the field's nearest class that is Django's own."""
    return next((each for each in type(field).__mro__ if each in PLAIN_TYPES or each in _REFERENCES), None)


def _overrides(field: Field[Any, Any], names: Sequence[str]) -> bool:
    base = _get_base(field)
    return any(
        name in field.__dict__ or getattr(type(field), name, None) is not getattr(base, name, None) for name in names
    )
