"""Renders the text of a new migration file from one of our templates, or from the author's own."""

from __future__ import annotations

import builtins
import keyword
from pathlib import Path
from typing import Final

from django.apps import apps
from django.core.management.base import CommandError
from django.db.models import Model
from django.template import Context, Engine, TemplateSyntaxError
from django.utils.text import camel_case_to_spaces

from massmigration.management import exits

FOLDER: Final = Path(__file__).resolve().parent.parent / "migration_templates"

KINDS: Final = {
    "simple": "SimpleMigration",
    "mapper": "MapperMigration",
    "batch": "BatchMigration",
    "custom": "CustomMigration",
}
"""Our templates, and the class that each of them imports."""


def find_template(name: str) -> Path:
    """Return the path of one of our templates, or of the author's own file.

    Raises:
        CommandError: It is neither.
    """
    if name in KINDS:
        return FOLDER / f"{name}.py-tpl"
    path = Path(name).expanduser()
    if not path.is_file():
        raise exits.refuse(f"There is no template {name!r}. Use {', '.join(KINDS)}, or the path of your own file.")
    return path


def find_model(reference: str) -> type[Model]:
    """Return the model that ``"app_label.Model"`` names.

    Raises:
        CommandError: There is none, or a module cannot import it by its name.
    """
    try:
        model = apps.get_model(reference)
    except (LookupError, ValueError) as error:
        raise exits.refuse(
            f"There is no model {reference!r}. Write --model as APP.MODEL, such as places.City: "
            "the label of an installed app and the name of one of its models."
        ) from error
    if model._meta.swapped:
        raise exits.refuse(f"{reference} is swapped for another model. Use --model {model._meta.swapped}.")
    if get_import(model) is None:
        raise exits.refuse(
            f"{model._meta.label} cannot be imported by its name. Leave --model out and write the queryset."
        )
    return model


def get_import(model: type[Model]) -> str | None:
    """Return the line that imports a model, from the app's ``models`` if it is there; None if none can."""
    modules = [model._meta.app_config.models_module, __import__(model.__module__, fromlist=["*"])]
    for module in modules:
        if module is not None and getattr(module, model.__name__, None) is model:
            return f"from {module.__name__} import {model.__name__}"
    return None


def render(
    template: Path,
    *,
    app_label: str,
    name: str,
    dependencies: list[tuple[str, str]],
    model: type[Model] | None,
) -> str:
    """Return the text of a migration file, which is valid Python.

    Args:
        template: A file in Django's template language. It can use ``imports`` (lines), ``app_label``,
            ``name``, ``key``, ``description``, ``dependencies`` (pairs), ``model`` (the model's name),
            ``queryset`` (an expression) and ``argument`` (a name for one object).
        app_label: Label of the app.
        name: The file's name, with its number, without ``.py``.
        dependencies: Apps and names of the mass migrations to be applied before.
        model: The model that the author named.

    Raises:
        CommandError: The template cannot be read or rendered, or what comes out is not Python.
    """
    imports = [f"from massmigration import {KINDS[template.stem]}"] if template.parent == FOLDER else []
    if model is not None:
        imports.append(get_import(model) or "")
    context = {
        "imports": sorted(imports, key=str.lower),
        "app_label": app_label,
        "name": name,
        "key": f"{app_label}:{name}",
        "description": _describe(name),
        "dependencies": dependencies,
        "model": model.__name__ if model else "",
        "queryset": f"{model.__name__}.{model._default_manager.name}.using(db_alias)" if model else "",
        "argument": _get_argument(model),
    }
    try:
        text = Engine(autoescape=False).from_string(template.read_text("utf-8")).render(Context(context))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The template {template} cannot be read: {error}.") from error
    except TemplateSyntaxError as error:
        raise exits.refuse(f"The template {template} cannot be rendered: {error}. Correct it.") from error
    try:
        compile(text, f"{name}.py", "exec")
    except (SyntaxError, ValueError) as error:
        raise exits.refuse(f"The template {template} does not give valid Python: {error}. Correct it.") from error
    return text.strip() + "\n"


def _describe(name: str) -> str:
    words = name.partition("_")[2].replace("_", " ").strip()
    return f"{words[:1].upper()}{words[1:]}."


def _get_argument(model: type[Model] | None) -> str:
    """Return what one object is called in ``operation``: ``Big_City`` and ``BigCity`` are ``big_city``."""
    if model is None:
        return "obj"
    name = "_".join(camel_case_to_spaces(model.__name__).replace("_", " ").split())
    taken = {"self", "db_alias", *keyword.kwlist, *keyword.softkwlist, *vars(builtins)}
    return "obj" if name in taken or not name.isidentifier() else name
