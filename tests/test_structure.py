"""How the package is built: which questions are asked in which rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import massmigration
from massmigration.definitions import base
from massmigration.engine.kinds import KINDS

PACKAGE = Path(massmigration.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "migration_templates" not in path.parts)

DEFINITIONS = {kind.definition.__name__ for kind in KINDS} | {
    name for name, value in vars(base).items() if isinstance(value, type) and issubclass(value, base.BaseMigration)
}
TYPE_TESTS_ALLOWED = ("engine/kinds/", "discovery/")


def find_type_tests(source: str) -> Iterator[str]:
    """Yield each ``isinstance`` and ``issubclass`` that names the class of a definition."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or len(call.args) < 2:
            continue
        names = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(call.args[1]) if isinstance(node, ast.Attribute)}
        if call.func.id in ("isinstance", "issubclass") and names & {*DEFINITIONS, "definition"}:
            yield f"line {call.lineno}: {ast.unparse(call)}"


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("isinstance(migration, QuerysetMigration)", True),
        ("issubclass(x, (int, definitions.MapperMigration))", True),
        ("isinstance(migration, kind.definition)", True),
        ("isinstance(error, RetryLater)", False),
    ],
)
def test_a_type_test_is_found(source, is_found):
    assert bool(list(find_type_tests(source))) == is_found


def test_only_the_kinds_and_the_discovery_ask_for_the_class_of_a_definition():
    found = {
        name: tests
        for path in MODULES
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(TYPE_TESTS_ALLOWED)
        and (tests := list(find_type_tests(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
