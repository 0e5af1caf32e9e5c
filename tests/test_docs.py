"""The documentation names everything that exists, with its real default, and nothing that does not."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
from django.dispatch import Signal

from massmigration import api, backends, checks, conf, definitions, exceptions, signals, states
from massmigration.backends.base import BaseBackend
from massmigration.databases.base import LOCK_PATIENCE_SECONDS
from massmigration.databases.keys import KEY_TYPES
from massmigration.databases.sqlite import DECIMAL_DIGITS
from massmigration.definitions import base, batch, custom, mapper, simple
from massmigration.engine.batch import REVISITS
from massmigration.engine.pacing import LARGEST_SIZE
from massmigration.engine.passes import MAX_PASSES
from massmigration.engine.progress import Progress, ShardProgress
from massmigration.engine.sharding import ROWS_PER_SHARD
from massmigration.engine.tables import _REFUSALS
from massmigration.exceptions import MassMigrationError
from tests import markdown
from tests.markdown import ROOT, find_pages, read

DEFINITIONS = (
    base.BaseMigration,
    base.WorkedMigration,
    base.QuerysetMigration,
    mapper.MapperMigration,
    batch.BatchMigration,
    custom.CustomMigration,
    simple.SimpleMigration,
)
NOT_FOR_AUTHORS = {"lifecycle"}
PAGES = find_pages()


def get_members(is_wanted) -> Iterator[tuple[type, str, object]]:
    """Yield class, name and value of what the definitions themselves declare in public."""
    for definition in DEFINITIONS:
        for name, value in vars(definition).items():
            if not name.startswith("_") and name not in NOT_FOR_AUTHORS and is_wanted(value):
                yield definition, name, value


def get_errors(of: type[MassMigrationError] = MassMigrationError) -> Iterator[type[MassMigrationError]]:
    """Yield the tree of our exceptions; those of single modules are theirs."""
    yield of
    for subclass in of.__subclasses__():
        if subclass.__module__ == exceptions.__name__:
            yield from get_errors(subclass)


def is_value(value: object) -> bool:
    return not callable(value) and not isinstance(value, property)


def get_defaults(*headings: str) -> dict[str, str]:
    page = read("kinds.md")
    rows = [row for heading in headings for row in page.get_section(heading).rows]
    return {row[0].strip("`"): row[1].strip("`") for row in rows}


def test_every_module_of_definitions_is_looked_at():
    modules = {value.__name__ for value in vars(definitions).values() if isinstance(value, ModuleType)}
    assert modules == {definition.__module__ for definition in DEFINITIONS}


def test_every_setting_is_documented_with_its_default():
    page = read("settings.md")
    rows = {row[0].split("`")[1]: row for row in page.rows if "MASSMIGRATION_" in row[0]}
    assert list(rows) == list(conf.SETTING_NAMES)
    for name, row in rows.items():
        assert name in page.headings, f"{name} has no paragraph of its own"
        assert f"](#{name.lower()})" in row[0]


def test_the_documented_defaults_of_the_settings_are_the_real_ones(settings):
    for first, _, default, _ in read("settings.md").rows:
        name = first.split("`")[1]
        if hasattr(settings, name):
            delattr(settings, name)
        real = getattr(conf.conf, name.removeprefix("MASSMIGRATION_").lower())
        if default.startswith("`massmigration-<uid>`"):
            assert real.name == f"massmigration-{os.getuid()}"
        elif default == "this process's Python":
            assert real == sys.executable
        else:
            assert ast.literal_eval(default.strip("`")) == (real if real is not None else ""), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(ROOT)))
def test_no_page_names_a_setting_that_does_not_exist(page):
    named = set(re.findall(r"\bMASSMIGRATION_[A-Z_]*[A-Z]\b", page.path.read_text(encoding="utf-8")))
    assert {name for name in named if not name.startswith("MASSMIGRATION_TEST_")} <= set(conf.SETTING_NAMES)


def test_every_check_is_documented_and_no_other():
    folders = [Path(checks.__file__).parent, Path(backends.__file__).parent]
    source = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py"))
    found = re.findall(r"""["'](?:massmigration\.)?([EW]\d{3})["']""", source)
    ids = {f"massmigration.{number}" for number in found}
    assert len(ids) > 10
    assert sorted(read("checks.md").terms) == sorted(ids)


def test_every_exception_is_documented_and_no_other():
    page = read("errors.md")
    classes = [error.__name__ for error in get_errors()]
    assert [row[0].strip("`") for row in page.rows[: len(classes)]] == classes
    assert re.findall(r"\w+", page.blocks[0].code) == classes, "the tree"
    drawn = (exceptions.__doc__ or "").split("::")[1]
    assert [line.split()[-1] for line in page.blocks[0].code.splitlines()] == [
        re.findall(r"\w+", line)[0] for line in drawn.splitlines() if line.strip()
    ]


def test_what_an_exception_carries_is_documented():
    spans = set(read("errors.md").get_section("What they carry").code_spans)
    for error in get_errors():
        taken = set(inspect.signature(error).parameters) - {"message"}
        assert taken <= spans, error


def test_every_status_reason_and_move_is_documented_and_no_other():
    page = read("statuses.md")
    statuses = [row[0].strip("`") for row in page.rows[: len(states.LABELS)]]
    assert statuses == list(states.LABELS)
    assert set(page.get_section("Reasons").terms) == set(states.REASONS)
    moves = {row[0]: row[1:] for row in page.get_section("Moves").rows}
    assert moves == {
        f"`{move.name}`": [
            ", ".join(f"`{source}`" for source in move.sources),
            f"`{move.target}`" if move.target else "as before",
            move.why,
        ]
        for move in states.MOVES.values()
    }


def test_the_diagram_of_statuses_shows_legal_moves_only():
    (diagram,) = [block.code for block in read("statuses.md").blocks if block.language == "mermaid"]
    arrows = re.findall(r"(\S+) --> (\S+): (.+)", diagram)
    assert len(arrows) > 12
    for source, target, actions in arrows:
        for action in actions.split(", "):
            status = states.NOT_RUN if source == "[*]" else source
            assert states.is_legal(action, status), (action, status)
            assert states.MOVES[action].target == target


def test_every_attribute_of_a_definition_is_documented_with_its_default():
    documented = {
        base.BaseMigration: get_defaults("Of all kinds"),
        base.WorkedMigration: get_defaults("Of the worked kinds"),
        base.QuerysetMigration: get_defaults("Of the queryset kinds"),
        mapper.MapperMigration: get_defaults("Of MapperMigration"),
    }
    real: dict[type, dict[str, object]] = {definition: {} for definition in documented}
    for definition, name, value in get_members(is_value):
        real[definition][name] = value
    for definition, defaults in documented.items():
        assert {name: ast.literal_eval(text) for name, text in defaults.items()} == real[definition]


def test_every_hook_of_a_definition_is_documented():
    spans = " ".join(read("kinds.md").code_spans)
    for definition, name, _ in get_members(lambda value: not is_value(value)):
        assert re.search(rf"\b{name}\b", spans), f"{definition.__name__}.{name}"


def test_every_documented_hook_exists():
    names = {name for definition in DEFINITIONS for name in dir(definition)}
    page = read("kinds.md")
    for term in [*page.get_section("Hooks").terms, *page.get_section("BaseMigration").terms]:
        assert term.partition("(")[0] in names, term


def test_every_refusal_of_a_queryset_and_every_kind_of_key_is_documented():
    section = read("kinds.md").get_section("Querysets that work, and those that are refused")
    keys = section.get_section("Primary keys").rows
    assert len(section.rows) - len(keys) == len(_REFUSALS) + 1, "and the one bound to another database"
    described = " ".join(row[0] for row in keys).lower()
    assert all(kind.name.lower().split()[0] in described for kind in KEY_TYPES)


def test_the_numbers_in_sentences_are_the_real_ones():
    sentences = {
        "settings.md": [f"{ROWS_PER_SHARD:,} rows at most", f"from 1 to {LARGEST_SIZE:,}"],
        "guarantees.md": ["up to five times"],
        "statuses.md": ["After five passes"],
        "errors.md": [f"more than {LOCK_PATIENCE_SECONDS:g} seconds"],
        "kinds.md": [f"more than {DECIMAL_DIGITS} digits"],
    }
    assert MAX_PASSES == 5
    assert REVISITS + 1 == 4
    assert "the fourth visit" in read("guarantees.md").path.read_text(encoding="utf-8")
    for name, expected in sentences.items():
        text = " ".join(read(name).path.read_text(encoding="utf-8").split())
        assert all(sentence in text for sentence in expected), name


def test_every_name_of_the_api_is_documented_and_no_other():
    page = read("api.md")
    functions = {term.partition("(")[0] for heading in ("Look", "Do") for term in page.get_section(heading).terms}
    functions -= {"user", "actor", "origin", "enqueue", "seen"}  # arguments, which have a table of their own
    real = {name for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    assert functions == real
    assert set(api.__all__) - real <= set(page.code_spans) | {heading.strip() for heading in page.headings}


def test_the_documented_parameters_of_the_api_exist():
    for term in read("api.md").terms:
        name, _, arguments = term.partition("(")
        if name in api.__all__:
            parameters = inspect.signature(getattr(api, name)).parameters
            named = re.findall(r"([a-z_]+)(?:=[^,)]*)?[,)]", arguments)
            assert set(named) <= set(parameters), term


def test_the_fields_of_progress_are_documented():
    page = read("api.md").get_section("Progress")
    fields = [field.name for field in dataclasses.fields(Progress)]
    in_json = list(Progress("a:0001_b", "a", "0001_b", "default", "not_run").as_dict())
    assert page.terms == fields[len(in_json) :]
    members = {name for name in vars(Progress) if not name.startswith("_")} - set(fields)
    in_shards = {field.name for field in dataclasses.fields(ShardProgress)}
    assert members | in_shards <= {span.removesuffix("()") for span in page.code_spans}


def test_the_fields_of_a_preparation_are_documented():
    fields = [field.name for field in dataclasses.fields(api.Preparation)]
    assert read("api.md").get_section("Preparation").terms == fields


def test_every_signal_is_documented_and_no_other():
    real = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(read("api.md").get_section("Signals").terms) == real


def test_the_methods_of_a_backend_are_documented():
    spans = " ".join(read("backends.md").get_section("A backend of one's own").code_spans)
    for name in vars(BaseBackend):
        if not name.startswith("_"):
            assert name in spans, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for link in page.links:
        target, _, anchor = unquote(link).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.path.name} links to {link}, which is not there"
        assert path.is_relative_to(ROOT), f"{page.path.name} links out of the repository: {link}"
        if anchor and path.suffix == ".md":
            assert anchor in markdown.Page(path).anchors, f"{page.path.name}: {link}"


def test_every_page_is_on_the_map():
    linked = {link.partition("#")[0] for link in read("index.md").links}
    assert {path.name for path in markdown.DOCS.glob("*.md")} - {"index.md"} <= linked
