"""What the loader finds, what it makes of broken files, and how migrations are named."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import traceback
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import AppRegistryNotReady

from massmigration.discovery import loader as loader_module
from massmigration.discovery.files import get_modules_package
from massmigration.discovery.loader import (
    MigrationLoader,
    clear_loader,
    get_loader,
)
from massmigration.exceptions import (
    AmbiguousName,
    BrokenMigration,
    CircularDependency,
    ConfigurationError,
    LoadError,
    MigrationNotFound,
    UnknownDependency,
)
from massmigration.overview import get_all_migrations
from tests.throwaway import Throwaway, reload_loader, simple, throwaway_apps


@pytest.fixture
def throwaway(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as maker:
        yield maker


def get_keys(loader: MigrationLoader) -> list[str]:
    """Return the keys of throw-away apps only."""
    labels = ("places:", "shops:", "world:", "lonely:")
    return [key for key in loader.graph.nodes if key.startswith(labels)]


# ---------------------------------------------------------------------------- finding


def test_finds_files_of_all_apps_with_key_path_and_module(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_a.py": simple(), "0002_b.py": simple(("places", "0001_a"))})
    throwaway.make_app("shops", {"0001_a.py": simple("places:0002_b")})
    loader = get_loader()
    assert get_keys(loader) == ["places:0001_a", "places:0002_b", "shops:0001_a"]
    file = loader.files["places:0002_b"]
    assert (file.key, file.app_label, file.name) == ("places:0002_b", "places", "0002_b")
    assert file.path == folder / "massmigrations" / "0002_b.py"
    assert file.module == "places.massmigrations.0002_b"
    assert file.number == 2
    migration = loader.get("shops:0001_a")
    assert (migration.key, migration.app_label, migration.name) == ("shops:0001_a", "shops", "0001_a")
    assert loader.graph.ancestors("shops:0001_a") == ["places:0001_a", "places:0002_b"]


def test_apps_without_folder_or_with_an_empty_one_are_fine(throwaway: Throwaway):
    throwaway.make_app("places")
    throwaway.make_app("shops", {})
    loader = get_loader()
    assert get_keys(loader) == []
    assert "places" not in loader.folders
    assert loader.folders["shops"].files == ()
    assert loader.unreadable == {}
    assert loader.app_keys("shops") == []


def test_a_folder_without_init_is_read(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple()}, has_init=False)
    assert get_loader().get("places:0001_a").key == "places:0001_a"


def test_an_app_that_is_a_single_module_has_no_migrations(throwaway: Throwaway):
    throwaway.write("lonely.py", "")
    throwaway.write("config.py", _CONFIG.format(name="lonely", label="lonely", root=str(throwaway.root)))
    throwaway.install("config.Config")
    assert get_keys(get_loader()) == []
    assert get_loader().unreadable == {}


_CONFIG = """\
from django.apps import AppConfig


class Config(AppConfig):
    name = {name!r}
    label = {label!r}
    path = {root!r}
"""


def test_the_label_of_a_nested_app_is_the_configs(throwaway: Throwaway):
    throwaway.write("project/__init__.py")
    throwaway.write("project/apps/__init__.py")
    throwaway.write("project/apps/places/__init__.py")
    throwaway.write("project/apps/places/massmigrations/0001_a.py", simple())
    throwaway.write(
        "project/apps/places/config.py",
        _CONFIG.format(name="project.apps.places", label="world", root=str(throwaway.root)),
    )
    throwaway.install("project.apps.places.config.Config")
    loader = get_loader()
    assert get_keys(loader) == ["world:0001_a"]
    assert loader.files["world:0001_a"].module == "project.apps.places.massmigrations.0001_a"


@pytest.mark.parametrize("name", ["_0001_a.py", "~0001_a.py", ".0001_a.py", "__init__.py", "0001_a.txt"])
def test_names_that_are_not_meant_are_left_alone(throwaway: Throwaway, name):
    throwaway.make_app("places", {name: "raise RuntimeError('must not be imported')"})
    loader = MigrationLoader()
    assert get_keys(loader) == []
    assert loader.folders["places"].strays == ()


def test_packages_are_no_migrations(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a/__init__.py": simple()})
    assert get_keys(get_loader()) == []


def test_a_file_without_number_is_told_but_not_imported(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"helpers.py": "raise RuntimeError", "0001_a.py": simple()})
    loader = get_loader()
    assert get_keys(loader) == ["places:0001_a"]
    assert loader.folders["places"].strays == (folder / "massmigrations" / "helpers.py",)


def test_names_that_end_like_the_ending_are_not_mangled(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_copy.py": simple(), "0002_happy.py": simple("places:0001_copy")})
    assert get_keys(get_loader()) == ["places:0001_copy", "places:0002_happy"]
    assert get_loader().broken == {}


def test_names_may_have_letters_of_any_language(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_städte.py": simple()})
    assert get_loader().get("places:0001_städte").name == "0001_städte"


@pytest.mark.parametrize(
    "name", ["0001.py", "0001-a.py", "0001_a.b.py", "0001_a copy.py", "0001a.py", f"0001_{'a' * 150}.py"]
)
def test_numbered_files_with_a_useless_name_are_broken(throwaway: Throwaway, name):
    throwaway.make_app("places", {name: simple(), "0002_b.py": simple()})
    loader = get_loader()
    key = f"places:{name.removesuffix('.py')}"
    assert str(loader.broken[key]).startswith(f"{key} has a name that cannot be used. Rename the file")
    assert get_loader().get("places:0002_b")


def test_compiled_files_without_source_are_found(throwaway: Throwaway):
    import py_compile

    folder = throwaway.make_app("places", {"0001_a.py": simple()}) / "massmigrations"
    py_compile.compile(str(folder / "0001_a.py"), cfile=str(folder / "0001_a.pyc"))
    (folder / "0001_a.py").unlink()
    assert get_loader().get("places:0001_a").key == "places:0001_a"


# ---------------------------------------------------------------------------- broken files

BROKEN = {
    "syntax": ("def (", "SyntaxError"),
    "indentation": ("  x = 1\n y = 2", "IndentationError"),
    "null byte": ("x = '\0'", "SyntaxError"),
    "import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module' (line 1)"),
    "error": ("\n\n1 / 0", "ZeroDivisionError: division by zero (line 3)"),
    "exit": ("import sys\nsys.exit(3)", "SystemExit: 3 (line 2)"),
    "generator exit": ("raise GeneratorExit", "GeneratorExit (line 1)"),
    "bare": ("raise BaseException('a\\nb')", "BaseException: a b (line 1)"),
    "unprintable": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd",
        "<exception str() failed> (line 4)",
    ),
    "recursion": ("def f():\n    f()\nf()", "RecursionError"),
    "asks too early": (
        "from massmigration.discovery.loader import get_loader\nget_loader()",
        "LoadError: The migrations were asked for while their files are being read",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_does_not_import_breaks_only_itself(throwaway: Throwaway, case):
    text, expected = BROKEN[case]
    folder = throwaway.make_app("places", {"0001_a.py": text, "0002_b.py": simple()})
    throwaway.make_app("shops", {"0001_a.py": simple("places:0002_b")})
    loader = get_loader()
    error = loader.broken["places:0001_a"]
    assert str(error).startswith("places:0001_a does not import: ")
    assert expected in str(error)
    assert error.key == "places:0001_a"
    assert error.path == str(folder / "massmigrations" / "0001_a.py")
    assert error.__cause__ is not None
    assert set(loader.migrations) >= {"places:0002_b", "shops:0001_a"}
    assert loader.get("shops:0001_a").key == "shops:0001_a"
    with pytest.raises(BrokenMigration, match="does not import") as caught:
        loader.get("places:0001_a")
    assert caught.value.path == error.path


def test_ctrl_c_while_a_file_is_imported_is_obeyed(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        get_loader()
    with pytest.raises(KeyboardInterrupt):  # and the next call tries again
        get_loader()


def test_a_broken_init_breaks_the_files_of_its_app_only(throwaway: Throwaway):
    throwaway.make_app("places", {"__init__.py": "1 / 0", "0001_a.py": simple()})
    throwaway.make_app("shops", {"0001_a.py": simple()})
    loader = get_loader()
    assert "ZeroDivisionError" in str(loader.broken["places:0001_a"])
    assert loader.get("shops:0001_a")


_CLASS = "from massmigration import *\nclass Migration({base}):\n    {body}\n"

UNUSABLE = {
    "empty": ("", "has no class Migration. Write one"),
    "function": ("def Migration(): pass", "has a Migration that is no mass migration"),
    "foreign class": ("class Migration: pass", "has a Migration that is no mass migration"),
    "django": (
        "from django.db import migrations\nclass Migration(migrations.Migration): pass",
        "holds a Django migration. Move the file to the app's folder migrations",
    ),
    "the kind itself": ("from massmigration import MapperMigration as Migration", "has no get_queryset()"),
    "simple": (_CLASS.format(base="SimpleMigration", body="pass"), "has no operation(). Write it"),
    "mapper": (
        _CLASS.format(base="MapperMigration", body="def operation(self, obj, db_alias): pass"),
        "has no get_queryset(). Write it: a MapperMigration needs it",
    ),
    "mapper 2": (
        _CLASS.format(base="MapperMigration", body="def get_queryset(self, db_alias): pass"),
        "has no operation(). Write it: a MapperMigration needs it",
    ),
    "batch": (_CLASS.format(base="BatchMigration", body="pass"), "has no get_queryset()"),
    "custom": (_CLASS.format(base="CustomMigration", body="pass"), "has no get_items()"),
    "base": (_CLASS.format(base="BaseMigration", body="pass"), "has no launch()"),
    "init": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    def __init__(self): pass"),
        "cannot be made: TypeError",
    ),
    "init exits": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    def __init__(self, a, b): raise SystemExit"),
        "cannot be made: SystemExit (line 4)",
    ),
    "dependencies as a string": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = 'places:0001_a'"),
        "has dependencies = 'places:0001_a', but it has to be a list",
    ),
    "dependencies as a number": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = 1"),
        "has dependencies = 1, but it has to be a list",
    ),
    "dependency without app": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = ['0001_a']"),
        "has '0001_a' in its dependencies, but it has to be a list such as",
    ),
    "dependency as a triple": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = [('a', 'b', 'c')]"),
        "has ('a', 'b', 'c') in its dependencies",
    ),
    "dependency on nothing": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = [('places', '')]"),
        "has ('places', '') in its dependencies",
    ),
    "dependency on a number": (
        _CLASS.format(base="BaseMigration", body="launch = 1\n    dependencies = [('places', 1)]"),
        "has ('places', 1) in its dependencies",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_without_a_usable_class_breaks_only_itself(throwaway: Throwaway, case):
    text, expected = UNUSABLE[case]
    throwaway.make_app("places", {"0007_x.py": text, "0008_b.py": simple()})
    loader = get_loader()
    assert str(loader.broken["places:0007_x"]).startswith(f"places:0007_x {expected}")
    assert str(loader.broken["places:0007_x"]).endswith(".")
    assert "places:0007_x" not in loader.migrations
    assert loader.get("places:0008_b")


def test_a_custom_migration_may_have_operation_many_only(throwaway: Throwaway):
    body = "def get_items(self, shard, cursor, db_alias): yield\n    def operation_many(self, items, db_alias): pass"
    throwaway.make_app("places", {"0001_a.py": _CLASS.format(base="CustomMigration", body=body)})
    assert get_loader().get("places:0001_a")


def test_methods_may_be_inherited(throwaway: Throwaway):
    throwaway.make_app("places", {"_base.py": simple().replace("class Migration", "class Common")})
    throwaway.write(
        "places/massmigrations/0001_a.py",
        "from places.massmigrations._base import Common\nclass Migration(Common): pass\n",
    )
    assert get_loader().get("places:0001_a")


def test_the_same_problem_raised_again_and_again_does_not_grow(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "1 / 0"})
    loader = get_loader()
    depths = []
    for _ in range(3):
        with pytest.raises(BrokenMigration) as caught:
            loader.get("places:0001_a")
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert depths[0] == depths[1] == depths[2]


# ---------------------------------------------------------------------------- dependencies


def test_unknown_dependencies_stop_their_children_only(throwaway: Throwaway):
    throwaway.make_app(
        "places",
        {
            "0001_a.py": simple(),
            "0002_b.py": simple("places:0001_gone", ("nowhere", "0001_x")),
            "0003_c.py": simple("places:0002_b"),
        },
    )
    loader = get_loader()
    assert loader.unknown_dependencies == [
        ("places:0002_b", "places:0001_gone"),
        ("places:0002_b", "nowhere:0001_x"),
    ]
    assert loader.get("places:0001_a")
    with pytest.raises(UnknownDependency, match="places:0002_b depends on places:0001_gone, which does not"):
        loader.get("places:0002_b")
    with pytest.raises(UnknownDependency) as caught:
        loader.get("places:0003_c")
    assert str(caught.value).startswith("places:0003_c depends on places:0002_b, which cannot be run: ")
    assert caught.value.key == "places:0003_c"
    assert set(loader.migrations) >= {"places:0001_a", "places:0002_b", "places:0003_c"}


def test_a_child_of_a_broken_file_cannot_be_run(throwaway: Throwaway):
    folder = throwaway.make_app(
        "places", {"0001_a.py": "1 / 0", "0002_b.py": simple("places:0001_a"), "0003_c.py": simple()}
    )
    loader = get_loader()
    with pytest.raises(BrokenMigration, match="places:0002_b depends on places:0001_a, which can") as caught:
        loader.get("places:0002_b")
    assert caught.value.key == "places:0002_b"
    assert caught.value.path == str(folder / "massmigrations" / "0001_a.py")
    assert list(loader.broken) == ["places:0001_a"]
    assert "places:0002_b" in loader.migrations
    assert loader.unknown_dependencies == []
    assert loader.find_problem("places:0003_c") is None


def test_circles_stop_their_members_and_what_depends_on_them(throwaway: Throwaway):
    throwaway.make_app(
        "places",
        {
            "0001_a.py": simple("shops:0001_a"),
            "0002_b.py": simple("places:0001_a"),
            "0003_c.py": simple(),
            "0004_d.py": simple("places:0004_d"),
        },
    )
    throwaway.make_app("shops", {"0001_a.py": simple("places:0001_a"), "0002_b.py": simple()})
    loader = get_loader()
    for key in ("places:0001_a", "shops:0001_a"):
        with pytest.raises(CircularDependency, match="places:0001_a and shops:0001_a depend on each other"):
            loader.get(key)
    with pytest.raises(CircularDependency, match=r"places:0004_d depends on itself\. Take one of"):
        loader.get("places:0004_d")
    with pytest.raises(CircularDependency, match=r"places:0002_b depends on .*, which cannot be run"):
        loader.get("places:0002_b")
    assert loader.get("places:0003_c")
    assert loader.get("shops:0002_b")
    assert loader.app_keys("places") == ["places:0002_b", "places:0003_c", "places:0001_a", "places:0004_d"]


def test_app_keys_come_in_the_order_of_running(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple("places:0002_b"), "0002_b.py": simple()})
    assert get_loader().app_keys("places") == ["places:0002_b", "places:0001_a"]


# ---------------------------------------------------------------------------- naming


@pytest.fixture
def three(throwaway: Throwaway) -> MigrationLoader:
    throwaway.make_app("places", {"0001_clean.py": simple(), "0001_clean_up.py": simple(), "0002_slugs.py": "1 / 0"})
    return get_loader()


def test_each_caller_gets_an_instance_of_its_own(three: MigrationLoader):
    first, second = three.get("places:0001_clean"), three.get("places:0001_clean")
    vars(first)["note"] = "what one thread keeps"
    assert not hasattr(second, "note")
    assert not hasattr(three.migrations["places:0001_clean"], "note")


_ONCE = """\
    made = 0

    def __init__(self, *args):
        type(self).made += 1
        assert self.made == 1
        super().__init__(*args)

"""


def test_one_that_cannot_be_made_again_is_broken(throwaway: Throwaway):
    text = simple().replace("    def operation", f"{_ONCE}    def operation")
    throwaway.make_app("places", {"0001_a.py": text, "0002_b.py": simple()})
    with pytest.raises(BrokenMigration, match="places:0001_a cannot be made again: AssertionError"):
        get_loader().get("places:0001_a")
    assert "places:0002_b" in [migration.key for migration in get_all_migrations()]


def test_references_are_keys_pairs_or_migrations(three: MigrationLoader):
    migration = three.get("places:0001_clean")
    references: list[Any] = ["places:0001_clean", ("places", "0001_clean"), ["places", "0001_clean"], migration]
    for reference in references:
        assert three.resolve(reference) == "places:0001_clean"
        assert (three.get(reference).key, type(three.get(reference))) == (migration.key, type(migration))
    with pytest.raises(MigrationNotFound):
        three.resolve("gone:0001_x")
    assert three.resolve("gone:0001_x", lambda key: key == "gone:0001_x") == "gone:0001_x"


@pytest.mark.parametrize("reference", ["places", "", ":", "a:b:c", ("a",), ("a", "b", "c"), ("a", 1), None, 5])
def test_other_references_are_refused(three: MigrationLoader, reference):
    with pytest.raises(MigrationNotFound, match=r"does not name a migration\. Write it as"):
        three.resolve(reference)


def test_a_prefix_finds_the_only_one(three: MigrationLoader):
    assert three.find("places", "0002") == "places:0002_slugs"
    assert three.find("places", "0001_clean_") == "places:0001_clean_up"
    assert three.find("places", "0001_clean") == "places:0001_clean"


def test_an_ambiguous_prefix_is_refused_with_the_names(three: MigrationLoader):
    with pytest.raises(AmbiguousName, match=r"of places: 0001_clean and 0001_clean_up\. Write more"):
        three.find("places", "0001")


def test_an_unknown_name_is_refused_with_what_there_is(three: MigrationLoader):
    with pytest.raises(MigrationNotFound, match=r"begins with '0009'\. places has 0001_clean, 0001_clean_up and"):
        three.find("places", "0009")
    with pytest.raises(MigrationNotFound, match=r"no migration places:0009_x\. places has 0001_clean, "):
        three.get("places:0009_x")
    with pytest.raises(MigrationNotFound, match="No installed app has the label 'plaecs'"):
        three.find("plaecs", "0001")
    with pytest.raises(MigrationNotFound, match="auth has no mass migrations: make one with"):
        three.find("auth", "0001")


def test_the_source_hash_is_that_of_the_file(three: MigrationLoader):
    for key in ("places:0001_clean", "places:0002_slugs"):
        text = three.files[key].path.read_bytes()
        assert three.source_hash(key) == hashlib.sha256(text).hexdigest()
    with pytest.raises(MigrationNotFound):
        three.source_hash("places:0009_x")


def test_the_source_hash_is_that_of_what_was_read(three: MigrationLoader):
    before = three.source_hash("places:0001_clean")
    three.files["places:0001_clean"].path.write_text("# changed")
    assert three.source_hash("places:0001_clean") == before


def test_the_source_hash_is_that_of_what_was_imported(three: MigrationLoader):
    before = three.source_hash("places:0001_clean")
    file = three.files["places:0001_clean"].path
    changed = file.read_text() + "\n# changed"
    file.write_text(changed)
    clear_loader()
    assert get_loader().source_hash("places:0001_clean") == before, "a new loader imports nothing again"
    assert reload_loader().source_hash("places:0001_clean") == hashlib.sha256(changed.encode()).hexdigest()


def test_migrations_can_be_pickled(three: MigrationLoader):
    copy = pickle.loads(pickle.dumps(three.get("places:0001_clean")))
    assert copy.key == "places:0001_clean"


# ---------------------------------------------------------------------------- MASSMIGRATION_MODULES


def test_the_setting_moves_or_disables_an_apps_migrations(throwaway: Throwaway, settings):
    throwaway.make_app("places", {"0001_a.py": simple()})
    throwaway.make_app("shops", {"0001_a.py": simple()})
    throwaway.write("elsewhere/for_places/0005_e.py", simple())
    settings.MASSMIGRATION_MODULES = {"places": "elsewhere.for_places", "shops": None}
    assert get_keys(get_loader()) == ["places:0005_e"]
    assert get_loader().files["places:0005_e"].module == "elsewhere.for_places.0005_e"
    assert get_modules_package(apps.get_app_config("places")) == "elsewhere.for_places"
    assert get_modules_package(apps.get_app_config("shops")) is None
    assert get_modules_package(apps.get_app_config("auth")) == "django.contrib.auth.massmigrations"


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("no_such.package", "names 'no_such.package' for the app places, but it cannot be found"),
        ("places.missing", "it cannot be found: there is no such package. Correct the setting"),
        ("bad_parent.x", "cannot be read: ZeroDivisionError: division by zero. Correct it."),
        ("places.single", "is a single file. Make a folder of that name"),
        ("..relative", "cannot be read: "),
    ],
)
def test_a_package_that_cannot_be_listed_takes_its_app_away_only(throwaway: Throwaway, settings, package, expected):
    throwaway.make_app("places", {"0001_a.py": simple()})
    throwaway.make_app("shops", {"0001_a.py": simple()})
    throwaway.write("bad_parent/__init__.py", "1 / 0")
    throwaway.write("places/single.py", "")
    settings.MASSMIGRATION_MODULES = {"places": package}
    loader = get_loader()
    assert get_keys(loader) == ["shops:0001_a"]
    assert list(loader.unreadable) == ["places"]
    assert expected in str(loader.unreadable["places"])


def test_massmigrations_as_a_single_file_is_told(throwaway: Throwaway):
    throwaway.make_app("places")
    throwaway.write("places/massmigrations.py", simple())
    assert "is a single file" in str(get_loader().unreadable["places"])


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_folder_that_may_not_be_read_is_told(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_a.py": simple()}) / "massmigrations"
    throwaway.make_app("shops", {"0001_a.py": simple()})
    if os.geteuid() == 0:
        pytest.xfail("root may read everything")
    folder.chmod(0)
    try:
        loader = get_loader()
    finally:
        folder.chmod(0o755)
    assert "cannot be read" in str(loader.unreadable["places"])
    assert loader.get("shops:0001_a")


def test_a_setting_of_the_wrong_type_is_a_configuration_error(settings):
    settings.MASSMIGRATION_MODULES = ["places"]
    with pytest.raises(ConfigurationError, match="MASSMIGRATION_MODULES"):
        get_loader()


# ---------------------------------------------------------------------------- one loader per process


def test_the_loader_is_made_once(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple()})
    assert get_loader() is get_loader()


def test_threads_get_the_same_loader(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": "import time; time.sleep(0.1)\n" + simple()})
    found: list[MigrationLoader] = []
    threads = [threading.Thread(target=lambda: found.append(get_loader())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 5
    assert len(set(map(id, found))) == 1


def test_clear_finds_new_files_and_keeps_what_is_imported(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_a.py": simple()}) / "massmigrations"
    before = type(get_loader().get("places:0001_a"))
    (folder / "0002_b.py").write_text(simple())
    clear_loader()
    assert get_keys(get_loader()) == ["places:0001_a", "places:0002_b"]
    assert type(get_loader().get("places:0001_a")) is before


def test_with_debug_new_and_repaired_files_are_noticed(throwaway: Throwaway, settings, monkeypatch):
    settings.DEBUG = True
    monkeypatch.setattr(loader_module._Cache, "PATIENCE_SECONDS", 0.0)
    folder = throwaway.make_app("places", {"0001_a.py": "1 / 0", "0002_b.py": simple()}) / "massmigrations"
    first = get_loader()
    assert get_loader() is first
    (folder / "0003_c.py").write_text(simple())
    second = get_loader()
    assert get_keys(second) == ["places:0001_a", "places:0002_b", "places:0003_c"]
    (folder / "0001_a.py").write_text(simple())
    os.utime(folder / "0001_a.py", (1, 1))
    assert get_loader().get("places:0001_a")
    (folder / "0003_c.py").unlink()
    assert get_keys(get_loader()) == ["places:0001_a", "places:0002_b"]


def test_without_debug_files_are_not_looked_at_again(throwaway: Throwaway, settings, monkeypatch):
    monkeypatch.setattr(loader_module._Cache, "PATIENCE_SECONDS", 0.0)
    folder = throwaway.make_app("places", {"0001_a.py": simple()}) / "massmigrations"
    first = get_loader()
    (folder / "0002_b.py").write_text(simple())
    assert get_loader() is first


def test_before_django_is_set_up_nothing_is_read(monkeypatch):
    monkeypatch.setattr(apps, "models_ready", False)
    clear_loader()
    with pytest.raises(AppRegistryNotReady):
        get_loader()


def test_errors_are_load_errors():
    assert issubclass(UnknownDependency, LoadError)
    assert issubclass(CircularDependency, LoadError)
