"""Attributes that cannot work are refused before anything is written."""

from __future__ import annotations

import pytest
from django.utils.translation import gettext_lazy

from massmigration import MapperMigration, SimpleMigration, executor, recorder
from massmigration.engine.attributes import CHOICES, RULES, SMALLEST, check_attributes
from massmigration.engine.kinds import KINDS
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


BAD: dict[str, list[object]] = {
    **{name: [-1] for name in SMALLEST},
    **{name: ["ignore", None] for name in CHOICES},
    "max_failures": [-1, 1.5, "10%", True],
    "schema_dependencies": [("places", "0001_initial"), "places.0001_initial", [("places",)], None],
    "allowed_db_aliases": ["default", 5, [5], {"default": 1}],
    "transient_errors": ["TimeoutError", ("TimeoutError",), (5,), None, TimeoutError(), (KeyboardInterrupt,)],
    "update_fields": ["slug", (name for name in ("slug",)), [5], None],
    "backend": [5, ["a.b"]],
    "queue_name": [5],
    "other_database": [5, ["default"]],
    "backend_params": [None, "abc", [("a", 1)]],
    "operator_notes": [None, 5],
    "until_empty": ["yes", 1],
    **{
        name: ["no", None, 0] for name in ("serial", "destructive", "atomic", "bounded", "lock_rows", "write_unchanged")
    },
}
GOOD: dict[str, list[object]] = {
    "max_failures": [0, 5, 0.5, None],
    "schema_dependencies": [(), [("places", "0001_initial")], [["places", "0001_initial"]]],
    "allowed_db_aliases": [None, [], ["default"], {"default"}],
    "transient_errors": [(), TimeoutError, [TimeoutError], (TimeoutError, OSError)],
    "update_fields": [(), ["slug"], {"slug"}],
    "backend_params": [{}, {"defer_kwargs": {}}],
    "operator_notes": ["", gettext_lazy("Wait.")],
    "until_empty": [None, True, False],
}


def test_every_attribute_has_its_rule_and_every_rule_is_tried():
    definitions = [kind.definition for kind in KINDS]
    declared = {
        name
        for definition in definitions
        for parent in definition.__mro__
        for name, value in vars(parent).items()
        if not name.startswith("_") and not callable(value) and not isinstance(value, property)
    }
    assert declared - {"lifecycle", "dependencies"} == set(RULES) == set(BAD)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_value_that_cannot_work(name, value):
    with pytest.raises(ConfigurationError, match=f"^{name} of testapp:0001_test is .* but it has to be "):
        check_attributes(make(type("Migration", (MapperMigration,), {name: value})))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_value_that_works(name, value):
    check_attributes(make(type("Migration", (MapperMigration,), {name: value})))


@pytest.mark.django_db(databases=["default"])
def test_the_start_is_refused():
    with pytest.raises(ConfigurationError, match=r"batch_size of testapp:0001_test is 0, but"):
        executor.start(make(type("Migration", (SimpleMigration,), {"batch_size": 0})), "default", AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", "default") is None
