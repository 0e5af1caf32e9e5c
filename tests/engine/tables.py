"""Models that only some tests need: their tables are made by the test that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models


@contextmanager
def make_tables(db_alias: str, *tables: type[models.Model]) -> Iterator[None]:
    """Create the tables, and drop them again."""
    with connections[db_alias].schema_editor() as editor:
        for table in tables:
            editor.create_model(table)
    try:
        yield
    finally:
        with connections[db_alias].schema_editor() as editor:
            for table in reversed(tables):
                editor.delete_model(table)


class Extra(models.Model):
    """A model of no installed app."""

    objects: models.Manager[Any] = models.Manager()

    class Meta:
        abstract = True
        app_label = "extra"


class Row(Extra):
    """What the tests look at, whatever the key is."""

    text = models.CharField(max_length=200, default="")
    visits = models.IntegerField(default=0)

    class Meta(Extra.Meta):
        abstract = True


class AddressRow(Row):
    id = models.GenericIPAddressField(primary_key=True)


class ShortDecimalRow(Row):
    id = models.DecimalField(primary_key=True, max_digits=15, decimal_places=6)


class ReferenceToDecimal(Row):
    decimal = models.OneToOneField("testapp.DecimalRow", models.CASCADE, primary_key=True)


class DateRow(Row):
    id = models.DateField(primary_key=True)


class TimeRow(Row):
    id = models.TimeField(primary_key=True)


class DurationRow(Row):
    id = models.DurationField(primary_key=True)


class CaselessRow(Row):
    """Its keys are ordered as no Python sorts them, and not as the database's other strings are."""

    id = models.CharField(primary_key=True, max_length=100, db_collation="NOCASE")


class BytewiseRow(Row):
    id = models.CharField(primary_key=True, max_length=100, db_collation="C")


class WideComposite(Row):
    """A composite key of every kind that needs care."""

    pk = models.CompositePrimaryKey("token", "moment", "number")
    token = models.UUIDField()
    moment = models.DateTimeField()
    number = models.DecimalField(max_digits=10, decimal_places=3)


class CompositeReference(Row):
    pk = models.CompositePrimaryKey("city", "number")
    city = models.ForeignKey("testapp.City", models.CASCADE, db_constraint=False)
    number = models.BigIntegerField()


class RangeKeyField(models.Field):
    """A type of key that the engine does not know."""

    def get_internal_type(self) -> str:
        return "RangeKeyField"

    def db_type(self, connection: object) -> str:
        return "varchar(20)"


class UnknownKey(Row):
    id = RangeKeyField(primary_key=True)


class Everything(Extra):
    """A column of every common type, empty or not; table and columns with names that need quotes."""

    text = models.TextField(null=True, db_column="select")
    char = models.CharField(max_length=30, default="", db_column="Char With Spaces")
    slug = models.SlugField(null=True)
    small = models.SmallIntegerField(null=True)
    number = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True, db_column="MixedCase")
    positive = models.PositiveIntegerField(null=True)
    yes = models.BooleanField(default=False)
    maybe = models.BooleanField(null=True)
    decimal = models.DecimalField(max_digits=12, decimal_places=3, null=True)
    real = models.FloatField(null=True)
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    clock = models.TimeField(null=True)
    span = models.DurationField(null=True)
    data = models.JSONField(null=True)
    token = models.UUIDField(null=True)
    blob = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    file = models.FileField(null=True)
    city = models.ForeignKey("testapp.City", models.CASCADE, null=True, db_constraint=False, related_name="+")
    changed_at = models.DateTimeField(auto_now=True, null=True)

    class Meta(Extra.Meta):
        db_table = "Every Thing"
