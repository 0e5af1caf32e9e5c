"""What is told of an error: its class and message without the values that a database adds to them.

PostgreSQL ends its messages with ``DETAIL: Failing row contains (…)``, MySQL quotes the value of a duplicate entry, and
Google's errors quote entities. All that is stored, shown or logged of an error is made here. Text that is stored has
nothing in it that a database refuses, and text for a log or a terminal has no line breaks and no control characters.
"""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from django.db import Error as DatabaseError

from massmigration.conf import conf
from massmigration.databases.capacity import explain_shortage
from massmigration.exceptions import ConfigurationError

CUT_MARK: Final = " … (cut)"
LINKS: Final = 50
"""Errors of one chain that are looked at; what lies further back is left out where something has to be cut."""

_DRIVERS: Final = frozenset(
    {"psycopg", "psycopg2", "sqlite3", "_sqlite3", "MySQLdb", "pymysql", "mysql", "oracledb", "gcloudc", "grpc"}
)
"""Top packages of what raises errors of databases; Google's are in ``google.api_core``."""

TEXT_LIMIT: Final = 20_000
"""Characters of one message that are looked through, and kept."""

_ADDED: Final = re.compile(
    r"(?:(?<!\S)|(?<=\\n))(?:(?:DETAIL|HINT|QUERY|CONTEXT|STATEMENT|WHERE):  |DETAIL: |LINE \d+: ).*", re.DOTALL
)
"""What PostgreSQL adds (https://www.postgresql.org/docs/current/protocol-error-fields.html), also in a quoted text."""

_ROWS: Final = re.compile(r"(?:\bKey \(.{0,500}?\)=\(|\bFailing row contains \().*", re.DOTALL)

_VALUES: Final = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"(?P<before>Duplicate entry ')(?P<value>.*)(?P<after>' for key)",  # MySQL, from here on
        r"(?P<before>(?:incorrect|truncated)[\w ]{0,60} value: ')(?P<value>.*)(?P<after>'(?: for column|\"\)|$))",
        r"(?P<before>\bnear ')(?P<value>.*)(?P<after>' at line \d+)",
        r"(?P<before>Could not decode to UTF-8 column '[^']*' with text ')(?P<value>.*)(?P<after>')",  # SQLite
        r"(?P<before>\bcontains a value ')(?P<value>.*)(?P<after>' that does not have)",  # Django, on SQLite
    )
)
_POSTGRES_VALUES: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<before>: \")(?P<value>.*)(?P<after>\")\Z",  # invalid input syntax for type integer: "…"
        r"(?P<before>\bvalue \")(?P<value>.*)(?P<after>\" (?:is out of range|for \"))",
    )
)
_ENTITY: Final = re.compile(r"[\n{<\[].*", re.DOTALL)

_JOINERS: Final = frozenset("\u200c\u200d")
"""Characters without a glyph that words and emoji need."""


def clean(text: str) -> str:
    """Return the text as every database can store it: NUL and lone surrogates are written out in letters."""
    if "\x00" in text:
        text = text.replace("\x00", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def clean_values(value: Any) -> Any:
    """Return a value for a JSON field with all its texts as ``make_storable`` leaves them."""
    if isinstance(value, str):
        return make_storable(value)
    if isinstance(value, dict):
        return {clean(str(name)): clean_values(item) for name, item in value.items()}
    return [clean_values(item) for item in value] if isinstance(value, (list, tuple)) else value


def make_storable(text: str) -> str:
    """Return a text that a person, an author or an error gave as it is stored: ``redact`` and ``clean``."""
    return clean(redact(text))


def flatten(text: str) -> str:
    """Return the text on one line, with what would steer a terminal written out in letters."""
    if text.isprintable():
        return text
    return "".join(repr(char)[1:-1] if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    if char.isprintable() or char == "\t" or char in _JOINERS:
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def cut(text: str, limit: int) -> str:
    """Return the text, shortened with a mark if it is longer than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def redact(text: str) -> str:
    """Return a text that may quote a database's error, without what that adds; see ``get_message`` for errors."""
    if _shows_details():
        return text
    text = cut(text, TEXT_LIMIT)
    for pattern in (_ADDED, _ROWS):
        if pattern.search(text):
            text = pattern.sub("", text).removesuffix("\\n").rstrip()
    for pattern in _VALUES:
        text = _mask(pattern, text)
    return text


def get_message(error: BaseException) -> str:
    """Return the message of an error without what a database adds, fit to be stored; it may have several lines."""
    return _Chain(error).get_message(error)


def describe(error: BaseException, limit: int = 2_000) -> str:
    """Return class and message of an error in one line.

    Args:
        error: Any error; one whose ``str()`` fails does no harm.
        limit: Characters at most.
    """
    message = " ".join(get_message(error).split())
    said = cut(f"{type(error).__name__}: {message}".rstrip(": "), limit)
    hint = explain_shortage(message) if isinstance(error, DatabaseError) else ""
    return f"{said.rstrip('.')}. {hint}" if hint else said


def format_traceback(error: BaseException) -> str:
    """Return the traceback, with causes and groups, without what a database adds and without local variables."""
    return clean("".join(traceback.format_exception(make_harmless(error))))


def make_harmless(error: BaseException, *, on_one_line: bool = False) -> BaseException:
    """Return an error whose traceback may be shown: this one, or a copy of its chain with other messages.

    The copies have the names of their classes, the frames, causes and notes, but are no instances of those classes.

    Args:
        error: Any error; it is not changed.
        on_one_line: Whether each message is put on one line, so that it does not look like a line of the log.
    """
    return _Chain(error, on_one_line=on_one_line).copy()


class _Chain:
    """An error with all that it came from, or consists of, and what may be told of each."""

    def __init__(self, error: BaseException, *, on_one_line: bool = False) -> None:
        self._error = error
        self._on_one_line = on_one_line
        self._links = list(_walk(error))
        self._replacements: dict[str, str] = {}
        if not _shows_details():
            for link in self._links:
                if is_from_database(link):
                    self._learn(link)

    def get_message(self, link: BaseException) -> str:
        return self._tell(_read(link))

    def copy(self) -> BaseException:
        if len(self._links) < LINKS and all(self._is_harmless(link) for link in self._links):
            return self._error
        return self._copy(self._error, {})

    def _learn(self, link: BaseException) -> None:
        """Remember what to write instead of a database's message, wherever another error quotes it."""
        raw = _read(link)
        shown = _cut_database_message(link, raw)
        if shown != raw:
            self._replacements[raw] = shown
            self._replacements[repr(raw)[1:-1]] = repr(shown)[1:-1]

    def _tell(self, text: str) -> str:
        for raw in sorted(self._replacements, key=len, reverse=True):
            text = text.replace(raw, self._replacements[raw])
        text = make_storable(text)
        return flatten(text) if self._on_one_line else text

    def _is_harmless(self, link: BaseException) -> bool:
        return all(self._tell(text) == text for text in (_read(link), *_get_notes(link)))

    def _copy(self, link: BaseException, made: dict[int, BaseException]) -> BaseException:
        if id(link) in made:
            return made[id(link)]
        names: dict[str, Any] = {"__module__": type(link).__module__, "__qualname__": type(link).__qualname__}
        name, parts = type(link).__name__, _get_parts(link)
        new: BaseException
        if parts:
            base = next(base for base in type(link).__mro__ if base.__name__ == "BaseExceptionGroup")
            copies = [self._copy(part, made) for part in parts if self._knows(part)]
            message = self._tell(str(getattr(link, "message", "")))
            new = type(name, (base,), names)(message, copies) if copies else Exception(message)
        else:
            new = type(name, (Exception,), names)(self.get_message(link))
        made[id(link)] = new
        if notes := _get_notes(link):
            setattr(new, "__notes__", [self._tell(note) for note in notes])  # noqa: B010  (Python 3.10 has none)
        for attribute in ("__cause__", "__context__"):
            other = getattr(link, attribute)
            if other is not None and self._knows(other):
                setattr(new, attribute, self._copy(other, made))
        new.__suppress_context__ = link.__suppress_context__
        return new.with_traceback(link.__traceback__)

    def _knows(self, link: BaseException) -> bool:
        return any(link is other for other in self._links)


def is_from_database(error: BaseException) -> bool:
    """Return whether a database, its driver, or Django for one of them has raised the error."""
    if isinstance(error, DatabaseError):
        return True
    modules = [base.__module__ for base in type(error).__mro__]
    return any(name.partition(".")[0] in _DRIVERS or name.startswith("google.api_core") for name in modules)


def _walk(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and those that it came from, or consists of, nearest first."""
    waiting, seen = [error], {id(error)}
    for _ in range(LINKS):
        if not waiting:
            return
        link = waiting.pop(0)
        yield link
        for other in (link.__cause__, link.__context__, *_get_parts(link), getattr(link, "_cause", None)):
            if isinstance(other, BaseException) and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _get_parts(error: BaseException) -> tuple[BaseException, ...]:
    """Return what an exception group consists of; Python 3.10 may have a backport of them."""
    is_group = any(base.__name__ == "BaseExceptionGroup" for base in type(error).__mro__)
    parts = getattr(error, "exceptions", ()) if is_group else ()
    return parts if isinstance(parts, tuple) else ()


def _get_notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def _read(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the author's code
        return "<exception str() failed>"  # as Python says it


def _cut_database_message(error: BaseException, text: str) -> str:
    """Return what a database says was wrong, without the values that it was wrong with."""
    if any(base.__module__.startswith(("google.", "grpc")) for base in type(error).__mro__):
        code, details = getattr(error, "code", None), getattr(error, "details", None)
        if callable(code) and callable(details):  # gRPC's own errors tell of the whole call
            text = f"{code()}: {details()}"
        return _ENTITY.sub("", text).rstrip()
    primary = _get_primary(error, text)
    text = redact(text) if primary is None else primary
    for pattern in _POSTGRES_VALUES:
        text = _mask(pattern, text)
    return redact(text)


def _get_primary(error: BaseException, text: str) -> str | None:
    """Return the message as PostgreSQL keeps it apart from details, in whatever language it speaks."""
    for link in (error, error.__cause__):
        primary = getattr(getattr(link, "diag", None), "message_primary", None)
        if isinstance(primary, str) and link is not None and _read(link) == text:
            return primary
    return None


def _mask(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: f"{match['before']}…{match['after']}", text)


def _shows_details() -> bool:
    try:
        return conf.show_database_details
    except ConfigurationError:  # it is told by the check, and nothing is shown until then
        return False
