"""The command that writes a new migration file, and what it refuses."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from massmigration.discovery.loader import get_loader
from massmigration.management.rendering import FOLDER, KINDS
from tests.throwaway import Throwaway, simple, throwaway_apps


@pytest.fixture(autouse=True)
def without_formatters(monkeypatch):
    """Leave black and ruff out, except where a test wants them: the templates have to be good without."""
    monkeypatch.setenv("PATH", os.devnull)


@pytest.fixture
def throwaway(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as maker:
        yield maker


def make(*args: str, **options: object) -> str:
    """Run the command and return what it said."""
    output = StringIO()
    call_command("makemassmigration", *args, stdout=output, **options)
    return output.getvalue()


def get_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_the_first_file_of_an_app(throwaway: Throwaway):
    folder = throwaway.make_app("places") / "massmigrations"
    output = make("places", "add_slugs")
    assert get_names(folder) == ["0001_add_slugs.py", "__init__.py"]
    assert (folder / "__init__.py").read_text() == ""
    assert output.splitlines() == [
        f"Wrote {folder / '0001_add_slugs.py'}",
        "Fill in its get_queryset() and operation(), then run it:",
        "  python manage.py massmigrate places 0001_add_slugs",
    ]
    migration: Any = get_loader().get("places:0001_add_slugs")
    assert type(migration).__mro__[1].__name__ == "MapperMigration"
    assert migration.description == "Add slugs."
    assert list(migration.dependencies) == []


def test_numbers_increase_and_the_latest_is_depended_on(throwaway: Throwaway):
    throwaway.make_app("places")
    for name in ("first", "happy", "third"):
        make("places", name, verbosity=0)
    loader = get_loader()
    assert loader.app_keys("places") == ["places:0001_first", "places:0002_happy", "places:0003_third"]
    assert loader.get("places:0002_happy").dependencies == [("places", "0001_first")]
    assert loader.get("places:0003_third").dependencies == [("places", "0002_happy")]


def test_numbers_go_on_after_the_highest_whatever_is_in_the_files(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0009_copy.py": "1 / 0", "10_y.py": "", "_0099_x.py": ""})
    make("places", "next")
    text = (folder / "massmigrations" / "0011_next.py").read_text()
    assert '        ("places", "10_y"),\n' in text


def test_several_latest_are_all_depended_on(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple(), "0001_b.py": simple()})
    make("places", "merge")
    migration: Any = get_loader().get("places:0002_merge")
    assert migration.dependencies == [("places", "0001_a"), ("places", "0001_b")]


def test_a_useless_name_counts_but_is_not_depended_on(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple(), "0004-b.py": ""})
    make("places", "next")
    assert get_loader().get("places:0005_next").dependencies == [("places", "0001_a")]


def test_numbers_may_have_five_digits(throwaway: Throwaway):
    throwaway.make_app("places", {"9999_a.py": simple()})
    make("places", "next")
    assert get_loader().get("places:10000_next").dependencies == [("places", "9999_a")]


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_template_gives_a_loadable_file_of_its_kind(throwaway: Throwaway, kind, with_model):
    throwaway.make_app("places", {"0001_a.py": simple()})
    make("places", "next", template=kind, model="testapp.City" if with_model else None)
    migration: Any = get_loader().get("places:0002_next")
    assert type(migration).__mro__[1].__name__ == KINDS[kind]
    with pytest.raises(NotImplementedError, match=r"^Write "):
        migration.operation(*["x"] * (1 if kind == "simple" else 2))
    if kind in ("mapper", "batch") and with_model:
        assert migration.get_queryset("default").db == "default"
        assert migration.get_queryset("default").model._meta.label == "testapp.City"


TOOLS = Path(sys.executable).parent
RUFF = ("--isolated", "--no-cache", "--target-version=py310")


@pytest.mark.parametrize("has_dependency", [False, True])
@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_formatted_and_clean_by_itself(throwaway: Throwaway, kind, with_model, has_dependency):
    folder = throwaway.make_app("places", {"0001_a.py": simple()} if has_dependency else {})
    make("places", "next", template=kind, model="testapp.City" if with_model else None)
    path = str(folder / "massmigrations" / f"{'0002' if has_dependency else '0001'}_next.py")
    text = Path(path).read_text()
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 88
    assert "\n\n\n\n" not in text
    assert ("from tests.testapp.models import City" in text) is with_model
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    tree = ast.parse(text)
    imported = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported <= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if (TOOLS / "ruff").exists():
        for command in (["format", "--check"], ["check", "--select=E,F,W,B,I"]):
            done = subprocess.run([TOOLS / "ruff", *command, *RUFF, path], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_the_folder_of_templates_has_these_only():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{kind}.py-tpl" for kind in KINDS)


def test_a_migration_runs_as_soon_as_its_methods_are_written(throwaway: Throwaway):
    folder = throwaway.make_app("places") / "massmigrations"
    make("places", "add_slugs", model="testapp.City")
    path = folder / "0001_add_slugs.py"
    text = path.read_text()
    lines = [line for line in text.splitlines(keepends=True) if "raise NotImplementedError" not in line]
    path.write_text("".join([*lines, "        city.slug = city.name.lower()\n"]))
    migration: Any = get_loader().get("places:0001_add_slugs")

    class City:
        name, slug = "Ulm", ""

    migration.operation(City, "default")
    assert City.slug == "ulm"


def test_dry_run_shows_the_file_and_writes_nothing(throwaway: Throwaway):
    folder = throwaway.make_app("places")
    output = make("places", "add_slugs", dry_run=True)
    first, _, text = output.partition("\n")
    assert first == f"Would write {folder / 'massmigrations' / '0001_add_slugs.py'}:"
    assert not (folder / "massmigrations").exists()
    make("places", "add_slugs")
    assert (folder / "massmigrations" / "0001_add_slugs.py").read_text() == text


def test_paths_are_told_as_seen_from_here(throwaway: Throwaway, monkeypatch):
    throwaway.make_app("places")
    monkeypatch.chdir(throwaway.root)
    assert f"Wrote places{os.sep}massmigrations{os.sep}0001_x.py" in make("places", "x")


def test_the_same_name_gets_a_new_number_and_nothing_is_overwritten(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_x.py": simple()}) / "massmigrations"
    make("places", "x")
    assert (folder / "0001_x.py").read_text() == simple()
    assert (folder / "0002_x.py").exists()


def test_a_file_that_appears_meanwhile_is_left_alone(throwaway: Throwaway):
    folder = throwaway.make_app("places", {}) / "massmigrations"
    (folder / "0001_x.py").symlink_to(folder / "not_there")  # Python does not see it, the system does
    with pytest.raises(CommandError, match=r"0001_x.py is there already, and was left as it is\. Try again"):
        make("places", "x")
    assert (folder / "0001_x.py").is_symlink()
    assert not (folder / "not_there").exists()


def test_an_init_is_added_but_not_emptied(throwaway: Throwaway):
    folder = throwaway.make_app("places", {"0001_a.py": simple()}, has_init=False) / "massmigrations"
    make("places", "x")
    assert (folder / "__init__.py").read_text() == ""
    (folder / "__init__.py").write_text("# ours")
    make("places", "y")
    assert (folder / "__init__.py").read_text() == "# ours"


def test_a_broken_migration_does_not_refuse_the_next_one(throwaway: Throwaway, run_in_terminal):
    folder = throwaway.make_app("places", {"0001_a.py": "raise SystemExit"}) / "massmigrations"
    done = run_in_terminal("places", "x")
    assert done.returncode == 0, done.stderr
    assert (folder / "0002_x.py").exists()


@pytest.fixture
def run_in_terminal(throwaway: Throwaway):
    """Run the command as a person does, in a site that has the app ``places``."""
    throwaway.write("site_settings.py", "from tests.settings import *\nINSTALLED_APPS += ['places']\n")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).resolve().parent.parent
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": os.pathsep.join([str(throwaway.root), str(root)]),
        }
        command = [sys.executable, "-m", "django", "makemassmigration", *args]
        return subprocess.run(command, env=environment, cwd=throwaway.root, capture_output=True, text=True)

    return run


def test_a_refusal_is_one_line_and_exit_code_2(throwaway: Throwaway, run_in_terminal):
    throwaway.make_app("places")
    done = run_in_terminal("nowhere", "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("CommandError: No installed app has the label 'nowhere'.")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["x", "Add_Slugs", "2024_cleanup", "a" * 145])
def test_good_names(throwaway: Throwaway, name):
    throwaway.make_app("places")
    make("places", name)
    assert get_loader().get(f"places:0001_{name}")


@pytest.mark.parametrize(
    "name", ["", "add-slugs", "add slugs", "_x", "x.py", "../x", "a/b", "städte", "x\n", "x;y", "{{x}}"]
)
def test_bad_names_are_refused(throwaway: Throwaway, name):
    folder = throwaway.make_app("places")
    with pytest.raises(CommandError, match=r"is not a good name for a migration\. Use letters from a to z"):
        make("places", name)
    assert not (folder / "massmigrations").exists()


def test_a_name_with_its_number_is_refused(throwaway: Throwaway):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match=r"'0002_x' begins with a number\. Leave it out"):
        make("places", "0002_x")


def test_a_name_that_is_too_long_is_refused(throwaway: Throwaway):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match=r"is too long\. With its number a name has at most 150 characters"):
        make("places", "a" * 146)


# ---------------------------------------------------------------------------- apps and packages


def test_an_unknown_app_is_refused():
    with pytest.raises(CommandError, match=r"No installed app has the label 'nowhere'\. Choose among .*testapp"):
        make("nowhere", "x")


def test_a_disabled_app_is_refused(throwaway: Throwaway, settings):
    throwaway.make_app("places")
    settings.MASSMIGRATION_MODULES = {"places": None}
    with pytest.raises(CommandError, match="MASSMIGRATION_MODULES says that the app places has no mass migra"):
        make("places", "x")


def test_a_bad_setting_is_refused(throwaway: Throwaway, settings):
    throwaway.make_app("places")
    settings.MASSMIGRATION_MODULES = 5
    with pytest.raises(CommandError, match="MASSMIGRATION_MODULES is 5"):
        make("places", "x")


def test_the_package_of_the_setting_is_made(throwaway: Throwaway, settings):
    throwaway.make_app("places", {"0001_not_here.py": simple()})
    throwaway.write("project/__init__.py", "# ours")
    settings.MASSMIGRATION_MODULES = {"places": "project.data.places"}
    make("places", "x")
    make("places", "y")
    assert get_names(throwaway.root / "project" / "data") == ["__init__.py", "places"]
    names = ["0001_x.py", "0002_y.py", "__init__.py"]
    assert get_names(throwaway.root / "project" / "data" / "places") == names
    assert (throwaway.root / "project" / "__init__.py").read_text() == "# ours"
    assert get_loader().get("places:0002_y").dependencies == [("places", "0001_x")]


def test_a_package_that_has_no_place_is_refused(throwaway: Throwaway, settings):
    throwaway.make_app("places")
    settings.MASSMIGRATION_MODULES = {"places": "no_such.package"}
    with pytest.raises(CommandError, match=r"no place for no_such\.package, .* no_such is not a package"):
        make("places", "x")


def test_massmigrations_as_a_single_file_is_refused(throwaway: Throwaway):
    throwaway.make_app("places")
    throwaway.write("places/massmigrations.py")
    with pytest.raises(CommandError, match=r"is a single file\. Make a folder of that name"):
        make("places", "x")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_a_folder_that_cannot_be_written_is_refused(throwaway: Throwaway):
    folder = throwaway.make_app("places", {}) / "massmigrations"
    if os.geteuid() == 0:  # root may write everywhere, but not below what is no folder
        (folder / "__init__.py").unlink()
        folder.rmdir()
        folder.symlink_to("/dev/full")
    else:
        folder.chmod(0o500)
    with pytest.raises(CommandError, match=r"0001_x\.py cannot be written: .*\. Correct the permissions, or name"):
        make("places", "x")


# ---------------------------------------------------------------------------- templates


def test_an_unknown_template_is_refused(throwaway: Throwaway):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match=r"no template 'maper'\. Use simple, mapper, batch, custom, or the path"):
        make("places", "x", template="maper")


TEMPLATE = """\
from massmigration.migrations import MapperMigration
{% for line in imports %}{{ line }}
{% endfor %}
class Migration(MapperMigration):
    ''' {{ description }} {{ key }} {{ app_label }} {{ name }} '''
    dependencies = [{% for dependency in dependencies %}
        ("{{ dependency.0 }}", "{{dependency.1}}"),{% endfor %}
    ]

    def get_queryset(self, db_alias):
        return {{ queryset|default:"None" }}

    def operation(self, {{ argument }}, db_alias):
        "<&>"
"""


def test_a_template_of_ones_own(throwaway: Throwaway):
    throwaway.make_app("places", {"0001_a.py": simple()})
    template = throwaway.write("mine.txt", TEMPLATE)
    output = make("places", "add_slugs", template=str(template), model="testapp.City")
    assert "Fill in" not in output
    migration: Any = get_loader().get("places:0002_add_slugs")
    assert migration.dependencies == [("places", "0001_a")]
    assert migration.description.strip() == "Add slugs. places:0002_add_slugs places 0002_add_slugs"
    assert migration.get_queryset("default").model._meta.label == "testapp.City"
    assert type(migration).operation.__doc__ == "<&>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{% no_such_tag %}", "cannot be rendered: Invalid block tag"),
        (b"{% for", "does not give valid Python: "),
        (b"class Migration(:", "does not give valid Python: "),
        (b"\xff\xfe", "cannot be read: "),
        (b"x = '\0'", "does not give valid Python: "),
    ],
)
def test_a_template_that_does_not_work_is_refused_and_nothing_written(throwaway: Throwaway, content, expected):
    folder = throwaway.make_app("places")
    template = throwaway.root / "mine.txt"
    template.write_bytes(content)
    with pytest.raises(CommandError, match=expected):
        make("places", "x", template=str(template))
    assert not (folder / "massmigrations").exists()


def test_a_folder_is_no_template(throwaway: Throwaway):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match="There is no template"):
        make("places", "x", template=str(throwaway.root))


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize("model", ["City", "testapp.Cit", "nowhere.City", "a.b.c", "testapp."])
def test_an_unknown_model_is_refused(throwaway: Throwaway, model):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match=f"There is no model '{model}'. Write --model as APP.MODEL"):
        make("places", "x", model=model)


def test_the_model_may_be_written_as_django_does(throwaway: Throwaway):
    folder = throwaway.make_app("places")
    make("places", "x", model="testapp.uuidrow")
    text = (folder / "massmigrations" / "0001_x.py").read_text()
    assert "from tests.testapp.models import UuidRow\n" in text
    assert "UuidRow.objects.using(db_alias).all()" in text
    assert "def operation(self, uuid_row, db_alias):" in text


def test_models_of_a_package_are_imported_from_the_package(throwaway: Throwaway):
    folder = throwaway.make_app("places")
    make("places", "x", model="auth.Group")
    text = (folder / "massmigrations" / "0001_x.py").read_text()
    assert text.startswith("from django.contrib.auth.models import Group\nfrom massmigration import Mapper")


def test_a_model_without_a_name_to_import_is_refused(throwaway: Throwaway):
    throwaway.make_app("places")
    with pytest.raises(CommandError, match=r"auth.User_groups cannot be imported by its name\. Leave --model out"):
        make("places", "x", model="auth.User_groups")


def test_a_swapped_model_is_refused(throwaway: Throwaway, settings):
    throwaway.make_app("places")
    settings.AUTH_USER_MODEL = "testapp.City"
    with pytest.raises(CommandError, match=r"auth\.User is swapped for another model\. Use --model testapp\.City"):
        make("places", "x", model="auth.User")


# ---------------------------------------------------------------------------- formatters


def put_on_path(throwaway: Throwaway, monkeypatch, *tools: str) -> None:
    """Have formatters, and nothing else, on the PATH, which add their name and options to the file."""
    for tool in tools:
        text = f'#!/bin/sh\nfor path; do :; done\necho "# {tool} $*" >> "$path"\n'
        throwaway.write(f"bin/{tool}", text).chmod(0o755)
    monkeypatch.setenv("PATH", str(throwaway.root / "bin"))


@pytest.mark.skipif(sys.platform == "win32", reason="the formatters are shell scripts")
@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (("black",), "# black --fast -- {path}"),
        (("ruff",), "# ruff format --no-cache --quiet -- {path}"),
        (("black", "ruff"), "# black --fast -- {path}"),
    ],
)
def test_the_file_is_formatted_with_what_there_is(throwaway: Throwaway, monkeypatch, tools, expected):
    put_on_path(throwaway, monkeypatch, *tools)
    path = throwaway.make_app("places") / "massmigrations" / "0001_x.py"
    make("places", "x")
    comments = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    assert comments == [expected.format(path=path)]


def test_a_formatter_that_does_not_start_does_no_harm(throwaway: Throwaway, monkeypatch):
    script = throwaway.write("bin/ruff", "#!/no/such/interpreter\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    throwaway.make_app("places")
    make("places", "x")
    assert get_loader().get("places:0001_x")
