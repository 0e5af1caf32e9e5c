"""How the package is built: which questions are asked in which rooms, and how little a new database needs."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
import types
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest
from django.db import OperationalError, connections

import massmigration
from massmigration import MapperMigration
from massmigration.databases.registry import get_database
from massmigration.databases.sql import SqlDatabase
from massmigration.definitions import base
from massmigration.engine.kinds import KINDS
from tests.engine.support import run
from tests.markdown import ROOT, Page
from tests.testapp.models import City

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


def find_imports(name: str, source: str, modules: Collection[str]) -> set[str]:
    """Return the modules that a module imports at its top, also for type checkers only, but not within functions."""
    found = set()
    statements: list[ast.stmt] = list(ast.parse(source).body)
    while statements:
        statement = statements.pop()
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            within = [f"{statement.module}.{alias.name}" for alias in statement.names]
            found |= {each if each in modules else str(statement.module) for each in within}
        elif not isinstance(statement, ast.FunctionDef):
            statements += [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)]
    return found & set(modules) - {name}


def find_circle(sources: Mapping[str, str]) -> list[str]:
    """Return the modules of one circle of imports, each of which imports the one before it; none if there is none."""
    imports = {name: find_imports(name, source, sources) for name, source in sources.items()}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize(
    ("source", "is_circle"),
    [
        ("import a.low", True),
        ("from a import low", True),
        ("try:\n    from a.low import x\nexcept ImportError:\n    pass", True),
        ("def f():\n    import a.low", False),
        ("if TYPE_CHECKING:\n    import a.low", True),
    ],
)
def test_a_circle_is_found(source, is_circle):
    assert bool(find_circle({"a": "", "a.low": "from a.high import y", "a.high": source})) == is_circle


def test_no_module_imports_another_one_in_a_circle():
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES]
    sources = {
        name.removesuffix(".__init__"): path.read_text(encoding="utf-8")
        for name, path in zip(names, MODULES, strict=True)
    }
    assert len(find_imports("massmigration.engine.batch", sources["massmigration.engine.batch"], sources)) > 10
    assert find_circle(sources) == []


FORBIDDEN = re.compile(r"\.vendor|is_document|gcloudc|sqlite3|psycopg|\bMySQLdb\b")
"""What asks which database it is, or knows a driver."""


def find_questions(text: str) -> list[str]:
    return FORBIDDEN.findall(text)


def test_no_module_outside_its_room_asks_which_database_it_is():
    assert find_questions('if connection.vendor == "x" or is_document_store(alias)') == [".vendor", "is_document"]
    found = {
        name: questions
        for path in MODULES
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith("databases/")
        and (questions := find_questions(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def get_skeleton() -> str:
    section = Page(ROOT / "CONTRIBUTING.md").get_section("Add a database in one file")
    (block,) = [block for block in section.blocks if block.language == "python"]
    return block.code


class Migration(MapperMigration):
    update_fields = ["visits"]
    shard_count = 2

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, city, db_alias):
        city.visits += 1


class DriverError(Exception):
    sqlstate = "MY001"


@pytest.fixture
def vendor(monkeypatch):
    """Have Django call the database of the tests by another vendor's name."""
    monkeypatch.setattr(connections["default"], "vendor", "mydb")
    return "mydb"


@pytest.mark.django_db(transaction=True)
def test_the_skeleton_of_a_new_database_works(vendor, monkeypatch):
    module = types.ModuleType(f"massmigration.databases.{vendor}")
    exec(compile(get_skeleton(), "CONTRIBUTING.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("massmigration.databases.registry._databases", {})
    database = get_database("default")
    assert type(database) is module.Database
    assert get_database("default") is database
    City.objects.bulk_create(City(name=f"City {number}", flag=number % 3 == 0) for number in range(90))
    progress = run(Migration, "default")
    assert (progress.status, progress.processed, progress.changed) == ("applied", 60, 60)
    assert set(City.objects.filter(flag=False).values_list("visits", flat=True)) == {1}
    assert isinstance(database, SqlDatabase)
    assert database.estimate(City.objects.all()) == 1000
    error = OperationalError("try again")
    error.__cause__ = DriverError()
    assert database.is_transient(error) and database.is_contention(error)
    assert not SqlDatabase("default").is_transient(error)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_not_known_is_worked_with_plain_sql(vendor, monkeypatch):
    monkeypatch.setattr("massmigration.databases.registry._databases", {})
    assert type(get_database("default")) is SqlDatabase
    City.objects.bulk_create(City(name=f"City {number}") for number in range(30))
    assert run(Migration, "default").status == "applied"
    assert set(City.objects.values_list("visits", flat=True)) == {1}


def test_each_capability_of_a_database_has_its_question():
    lines = (PACKAGE / "databases" / "base.py").read_text(encoding="utf-8").splitlines()
    capabilities = [number for number, line in enumerate(lines) if re.match(r"    \w+: [\w |]+ = ", line)]
    assert len(capabilities) > 10
    for number in capabilities:
        comment = next(line for line in reversed(lines[:number]) if not re.match(r"    \w+: ", line))
        assert comment.startswith("    # ") and "?" in comment, lines[number]
