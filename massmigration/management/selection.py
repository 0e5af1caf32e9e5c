"""From APP, NAME and the databases on a command line to keys and aliases; what commands ask of files and records."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS, connections

from massmigration import api, recorder, states
from massmigration.databases.aliases import check_alias, get_aliases
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.exceptions import MassMigrationError
from massmigration.management import exits


def find_app(label: str) -> str:
    """Return the label of an installed app, or refuse it.

    Raises:
        CommandError: There is no such app.
        LoadError: Its folder of migrations cannot be read.
    """
    try:
        apps.get_app_config(label)
    except LookupError as error:
        raise exits.refuse(f"{error.args[0]} Look at INSTALLED_APPS, or list all with showmassmigrations.") from error
    unreadable = get_loader().unreadable
    if label in unreadable:
        raise unreadable[label]
    return label


def get_unreadable() -> dict[str, MassMigrationError]:
    """Return the labels of the apps whose folder of migrations cannot be read, with the errors."""
    return dict(get_loader().unreadable)


def get_recorded_keys(db_alias: str) -> list[str]:
    """Return the keys of all records."""
    return recorder.get_keys(db_alias)


def get_ancestors(key: str) -> list[str]:
    """Return the keys of what a migration depends on, dependencies first."""
    return list(get_loader().graph.ancestors(key))


def get_keys_in_order(app_label: str | None, key: str | None) -> list[str]:
    """Return the keys of an app or a migration and what that depends on, dependencies first; what is broken, too."""
    loader = get_loader()
    if key is not None:
        return [*get_ancestors(key), key]
    wanted = set(loader.files)
    if app_label is not None:
        own = loader.app_keys(app_label)
        wanted = {*own, *(ancestor for each in own for ancestor in loader.graph.ancestors(each))}
    ordered = [each for each in loader.graph.order() if each in wanted]
    return ordered + sorted(wanted - set(ordered))


def find_definition(key: str) -> BaseMigration | None:
    """Return the definition of a migration; None if it, or one that it depends on, does not work."""
    loader = get_loader()
    return loader.migrations[key] if loader.find_problem(key) is None else None


def find_key(
    app_label: str | None, name: str | None, *, db_aliases: list[str] | None = None
) -> tuple[str | None, str | None]:
    """Return the app's label and the key that are meant; None for what was not given.

    Args:
        app_label: An app's label, or a key, whose name may be shortened.
        name: A migration's name, or how it begins.
        db_aliases: Where to look for a record whose file is gone; None: a file is needed.

    Raises:
        CommandError: There is no such app.
        LoadError: There is no such migration, or more than one.
    """
    if app_label is not None and ":" in app_label:
        if name is not None:
            raise exits.refuse(f"{app_label} names a migration already, so {name} is too much. Leave one of them out.")
        app_label, _, name = app_label.partition(":")
    if app_label is None:
        return None, None
    if name is None:
        return find_app(app_label), None
    records = {key for alias in db_aliases or () for key in recorder.get_keys(alias)}
    if not any(key.startswith(f"{app_label}:{name}") for key in records):
        find_app(app_label)
    return app_label, get_loader().find(app_label, name, records)


def get_wanted_aliases(options: dict[str, Any], key: str | None = None) -> list[str]:
    """Return the databases that the options name; with ``--all-databases`` those that have a use for it.

    Raises:
        DatabaseNotAllowed: There is no such alias.
        CommandError: One of them has no tables of ours.
    """
    chosen: list[str] = list(dict.fromkeys(options.get("database") or ()))
    if chosen and options.get("all_databases"):
        raise exits.refuse("--database and --all-databases exclude each other. Leave one of them out.")
    if options.get("all_databases"):
        chosen = get_all_aliases(key)
    for alias in chosen or [DEFAULT_DB_ALIAS]:
        check_alias(alias)
        if not api.has_tables(alias):
            option = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
            raise exits.refuse(
                f"Database '{alias}' has no tables of massmigration. Make them with: python manage.py migrate{option}"
            )
    return chosen or [DEFAULT_DB_ALIAS]


def get_all_aliases(key: str | None) -> list[str]:
    """Return all databases that the migration, or any migration, may run on."""
    loader = get_loader()
    migrations = api.get_all_migrations() if key is None else [loader.get(key)] if key in loader.files else []
    if key is not None and not migrations:  # a record without a file
        return [alias for alias in get_aliases() if api.has_tables(alias)]
    allowed = {alias for migration in migrations for alias in api.get_database_aliases(migration)}
    return [alias for alias in connections if alias in allowed]


def get_one(options: dict[str, Any], verb: str) -> tuple[str, list[str]]:
    """Return the one key that a verb needs, also of a record without a file, and the databases.

    Raises:
        CommandError: None was given.
        MigrationNotFound: There is neither a file nor a record.
    """
    aliases = get_wanted_aliases({**options, "all_databases": False}) if not options.get("all_databases") else None
    where = aliases or [alias for alias in get_aliases() if api.has_tables(alias)]
    key = find_key(options.get("app_label"), options.get("name"), db_aliases=where)[1]
    if key is None:
        raise exits.refuse(f"massmigration {verb} needs a migration: APP NAME, or a key such as places:0002_slugs.")
    return key, aliases or get_wanted_aliases(options, key)


def confirm(command: BaseCommand, options: dict[str, Any], action: states.Action, target: str) -> None:
    """Say what an action does, and leave the command unless the person wants it, as ``ask`` does."""
    question = f"{action.why}\n{action.submit}: {target}?"
    ask(command, options, question, f"massmigration {action.verb}")


def ask(command: BaseCommand, options: dict[str, Any], question: str, what: str) -> None:
    """Ask a question, and leave the command without a change unless the answer is yes; ``--noinput`` is a yes.

    Args:
        command: For its output.
        options: With ``interactive``, if the command has the option.
        question: Without the choices.
        what: What is asked about, for the refusal where there is no terminal.

    Raises:
        CommandError: There is no terminal to ask in.
        Leave: The answer was no, or Ctrl-C.
    """
    if not options.get("interactive"):
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise exits.refuse(f"{what} has to be confirmed, but there is no terminal to ask in. Add --noinput to say yes.")
    try:
        answer = input(f"{question} [y/N] ").strip().lower()
    except EOFError:
        answer = ""
    except KeyboardInterrupt:
        command.stdout.write("\nNothing was changed.")
        raise exits.Leave(exits.INTERRUPTED) from None
    if answer not in ("y", "yes"):
        command.stdout.write("Nothing was changed.")
        raise exits.Leave(exits.STOPPED)
