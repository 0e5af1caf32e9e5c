"""Attributes that cannot work are refused before anything is written."""

from __future__ import annotations

import pytest

from massmigration import MapperMigration, SimpleMigration, executor, recorder
from massmigration.engine.attributes import CHOICES, SMALLEST, check_attributes
from massmigration.exceptions import ConfigurationError
from tests.engine.support import AUTHOR, make


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("value", [-1, 2.5, "5", True])
def test_numbers(name, value):
    smallest = SMALLEST[name]
    check_attributes(make(type("Migration", (MapperMigration,), {name: smallest})))
    with pytest.raises(ConfigurationError) as refusal:
        check_attributes(make(type("Migration", (MapperMigration,), {name: value})))
    assert str(refusal.value) == (
        f"{name} of testapp:0001_test is {value!r}, but it has to be a whole number of at least {smallest}, or None. "
        "Correct it."
    )


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    for choice in CHOICES[name]:
        check_attributes(make(type("Migration", (MapperMigration,), {name: choice})))
    with pytest.raises(
        ConfigurationError, match=f"{name} of testapp:0001_test is 'ignore', but it has to be '.*' or '"
    ):
        check_attributes(make(type("Migration", (MapperMigration,), {name: "ignore"})))


@pytest.mark.django_db(databases=["default"])
def test_the_start_is_refused():
    with pytest.raises(ConfigurationError, match=r"batch_size of testapp:0001_test is 0, but"):
        executor.start(make(type("Migration", (SimpleMigration,), {"batch_size": 0})), "default", AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", "default") is None
