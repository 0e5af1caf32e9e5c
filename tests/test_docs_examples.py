"""What the documentation shows works: Python compiles, migrations run, and commands exist with their options."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError

from massmigration.management.verbs import VERBS
from tests.markdown import ROOT, Block, Page, find_pages, read

EXAMPLE = ROOT / "example_project"
OUR_COMMANDS = ("makemassmigration", "massmigrate", "showmassmigrations", "massmigration")
PAGES = find_pages()
BLOCKS = [block for page in PAGES for block in page.blocks]
PYTHON = [block for block in BLOCKS if block.language == "python"]
MIGRATIONS = [block for block in PYTHON if "class Migration(" in block.code]
FIELDS = [block for block in PYTHON if re.match(r"\s+\w+ = models\.", block.code)]
COMMAND_LINES = [
    (block.place, line.removeprefix("$ "))
    for block in BLOCKS
    if block.language == "console"
    for line in block.code.splitlines()
    if line.startswith("$ ")
] + [
    (block.place, f"python manage.py {arguments}")
    for block in BLOCKS
    if block.language in ("console", "text")
    for arguments in re.findall(r"(?m)^(?!\$ ).*\bmanage\.py (.+)$", block.code)
]

WORKER = """
import json, sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

django.setup()
from massmigration import api
from massmigration.discovery.loader import clear_loader
from places.models import AlternateName, City, Country

call_command("makemigrations", "places", name="city_utc_offset", verbosity=0)
call_command("migrate", verbosity=0)
call_command("massmigrate", "places", fake=True, interactive=False, verbosity=0)
settings.DATA_DIR.mkdir()
header = "code,name,continent,capital,currency"
(settings.DATA_DIR / "countries.csv").write_text(header + "\\nBR,Brazil,South America,Brasília,BRL\\n")
folder, result = Path("places/massmigrations").resolve(), {}
for number, (place, code) in enumerate(json.loads(sys.stdin.read()).items(), start=9000):
    for model in (AlternateName, City, Country):
        model.objects.all().delete()
    for key, names in ((1, "SP,Sampa"), (2, "")):
        City.objects.create(
            id=key, name="São Paulo", country_code="BR", latitude=-23.5, longitude=-46.6, population=10_021_295,
            timezone="America/Sao_Paulo", alternate_names=names,
        )
    Country.objects.create(code="BR", name="Brazil")
    name = f"{number}_example"
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    clear_loader()
    try:
        call_command("massmigrate", "places", name, interactive=False, verbosity=0)
    except SystemExit:
        pass
    except Exception as error:
        result[place] = {"status": f"{type(error).__name__}: {error}"}
        continue
    result[place] = api.get_progress(f"places:{name}").as_dict()
print("RESULT", json.dumps(result))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, dict[str, object]]:
    """How each migration that is shown ends, on a copy of the example project."""
    directory = tmp_path_factory.mktemp("docs")
    project = directory / "project"
    ignored = shutil.ignore_patterns("data", "*.sqlite3*", "__pycache__")
    shutil.copytree(EXAMPLE, project, ignore=ignored)
    models = project / "places" / "models.py"
    (field,) = FIELDS
    text, count = re.subn(r"(?m)^(    size = .*\n)", lambda found: found[0] + field.code, models.read_text("utf-8"))
    assert count == 1, "the tutorial's field goes below size"
    models.write_text(text, encoding="utf-8")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "EXAMPLE_LOCAL": "1",
        "EXAMPLE_DB": str(directory / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join((str(project), str(ROOT))),
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=json.dumps({block.place: block.code for block in MIGRATIONS}),
        env=environment,
        cwd=project,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout + done.stderr
    result: dict[str, dict[str, object]] = json.loads(lines[0].removeprefix("RESULT "))
    return result


def get_parser(command: str):
    return load_command_class(get_commands()[command], command).create_parser("manage.py", command)


def get_options(command: str, verb: str | None = None) -> set[str]:
    """Return the options that a command, or one of its verbs, has beyond Django's own."""
    parser = get_parser(command)
    if verb is not None:
        parser = next(action for action in parser._actions if action.dest == "verb").choices[verb]
    of_django = {option for action in BaseCommand().create_parser("", "")._actions for option in action.option_strings}
    return {option for action in parser._actions for option in action.option_strings} - of_django


def get_words(text: str) -> set[str]:
    return set(re.findall(r"`(--[\w-]+)`", text))


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_compiles(block: Block):
    compile(dedent(block.code), block.place, "exec")


@pytest.mark.parametrize("block", MIGRATIONS, ids=lambda block: block.place)
def test_migrations_run(block: Block, runs):
    ended = runs[block.place]
    assert ended["status"] == "applied", ended
    if not re.search(r"class Migration\((Base|Simple)Migration\)", block.code):
        assert ended["processed"], "it visited nothing"


def test_the_tutorial_shows_the_examples_own_first_migration():
    def get_body(code: str) -> str:
        return code[code.index("    schema_dependencies") :].strip()

    shown = next(block.code for block in read("tutorial.md").blocks if "class Migration(" in block.code)
    real = (EXAMPLE / "places" / "massmigrations" / "0001_city_slugs.py").read_text(encoding="utf-8")
    assert get_body(shown) == get_body(real)


@pytest.mark.parametrize(("place", "line"), COMMAND_LINES, ids=[f"{place} {line}" for place, line in COMMAND_LINES])
def test_commands_exist_with_their_options(place: str, line: str):
    program, *arguments = shlex.split(line)
    if program == "make":
        targets = re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
        assert set(arguments) <= set(targets)
    elif program == "pip":
        files = [arguments[number + 1] for number, word in enumerate(arguments) if word == "-r"]
        assert all((ROOT / file).exists() for file in files)
    elif program == "python" and arguments[0] == "manage.py":
        check_command(*arguments[1:])
    else:
        assert program in {"cd", ".", "python3", "git"}, f"{place}: nobody checks {line!r}"


def check_command(name: str, *arguments: str) -> None:
    """Let the command's own parser read the arguments; it raises an error for what it does not know."""
    if (EXAMPLE / "places" / "management" / "commands" / f"{name}.py").exists():
        return
    assert name in get_commands(), f"there is no command {name}"
    try:
        get_parser(name).parse_args(list(arguments))
    except CommandError as error:
        raise AssertionError(f"{name} {' '.join(arguments)}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(ROOT)))
def test_commands_within_sentences_exist(page: Page):
    for span in page.code_spans:
        words = span.removeprefix("python ").removeprefix("manage.py ").split()
        if not words or words[0] not in OUR_COMMANDS or len(words) == 1:
            continue
        if words[0] == "massmigration" and words[1].islower() and words[1].isalpha():
            assert words[1] in VERBS or any(words[1] in verb.aliases for verb in VERBS.values()), span
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        verb = words[1] if words[0] == "massmigration" and words[1] in VERBS else None
        assert named <= get_options(words[0], verb) | {"--verbosity"}, span


@pytest.mark.parametrize("command", OUR_COMMANDS)
def test_every_option_of_a_command_is_documented_and_no_other(command):
    section = read("commands.md").get_section(command)
    documented = {word for row in section.rows for word in get_words(" ".join(row))}
    if command == "massmigration":
        documented |= {"--plan", "--fake", "--attempt"}  # of run, which are massmigrate's
        real = {option for verb in VERBS for option in get_options(command, verb)}
    else:
        real = get_options(command)
    assert documented == real


def test_every_verb_is_documented_with_its_options_and_no_other():
    rows = read("commands.md").get_section("massmigration").rows
    names = [re.findall(r"`(\w+)`", row[0]) for row in rows]
    assert names == [[verb.name, *verb.aliases] for verb in VERBS.values()]
    before: set[str] = set()
    for row, verb in zip(rows, VERBS.values(), strict=True):
        documented = get_words(row[2]) | (before if row[2].startswith("the same") else set())
        if verb.name == "run":
            assert get_options("massmigration", "run") == get_options("massmigrate")
            continue
        assert documented == get_options("massmigration", verb.name), verb.name
        before = documented


def test_the_fields_of_the_json_are_documented_in_their_order():
    from massmigration.engine.progress import Progress

    fields = list(Progress("a:0001_b", "a", "0001_b", "default", "not_run").as_dict())
    assert read("commands.md").get_section("JSON").terms == fields


def test_every_exit_code_is_documented_and_no_other():
    from massmigration.management import exits

    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {int(term) for term in read("commands.md").get_section("Exit codes").terms} == codes


def test_the_templates_of_makemassmigration_are_documented():
    spans = set(read("commands.md").get_section("makemassmigration").code_spans)
    assert {path.stem for path in Path(ROOT / "massmigration" / "migration_templates").glob("*.py-tpl")} <= spans
