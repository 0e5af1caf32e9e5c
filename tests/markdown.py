"""Reads Markdown pages: their sections, tables, code and links, so that tests can hold them to the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_HIDDEN = {"node_modules", "build", "dist", "venv"}


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: The file it stands in.
        line: Where it begins, from 1.
        language: Such as ``python``.
        code: Its text.
    """

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Page:
    """One Markdown file, or one section of it.

    Args:
        path: The file.
        tokens: What it consists of; None: all of the file.
    """

    def __init__(self, path: Path, tokens: list[Token] | None = None) -> None:
        self.path = path
        if tokens is None:
            tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
        self.tokens = tokens

    @property
    def headings(self) -> list[str]:
        """The texts of all headings, without markup."""
        return [
            _get_text(self.tokens[number + 1])
            for number, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]

    @property
    def anchors(self) -> set[str]:
        """The fragments that a link may name, as GitHub makes them."""
        found: set[str] = set()
        for heading in self.headings:
            anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            number = 1
            while (unique := anchor if number == 1 else f"{anchor}-{number - 1}") in found:
                number += 1
            found.add(unique)
        return found

    def get_section(self, heading: str) -> Page:
        """Return what stands under a heading, with the headings below it."""
        for start, token in enumerate(self.tokens):
            if token.type == "heading_open" and _get_text(self.tokens[start + 1]) == heading:
                levels = {f"h{level}" for level in range(1, int(token.tag[1]) + 1)}
                rest = self.tokens[start + 3 :]
                ends = (n for n, other in enumerate(rest) if other.type == "heading_open" and other.tag in levels)
                return Page(self.path, rest[: next(ends, len(rest))])
        raise AssertionError(f"{self.path.name} has no heading {heading!r}. It has: {self.headings}")

    @property
    def rows(self) -> list[list[str]]:
        """The rows of all tables without their heads; cells as they were typed."""
        rows: list[list[str]] = []
        is_body = False
        for number, token in enumerate(self.tokens):
            if token.type in ("tbody_open", "tbody_close"):
                is_body = token.type == "tbody_open"
            elif is_body and token.type == "tr_open":
                rows.append([])
            elif is_body and token.type == "td_open":
                rows[-1].append(self.tokens[number + 1].content)
        return rows

    @property
    def terms(self) -> list[str]:
        """What is set as code in the first cells of the tables: the things that they explain."""
        return [term for row in self.rows for term in re.findall(r"`([^`]+)`", row[0])]

    @property
    def code_spans(self) -> list[str]:
        """Everything that is set as code within a sentence or a cell."""
        return [child.content for child in self._get_children() if child.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """The addresses that are linked to."""
        return [str(child.attrs["href"]) for child in self._get_children() if child.type == "link_open"]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of code."""
        return [
            Block(self.path, (token.map or [0])[0] + 1, token.info.strip(), token.content)
            for token in self.tokens
            if token.type == "fence"
        ]

    def _get_children(self) -> Iterator[Token]:
        for token in self.tokens:
            yield from token.children or ()


def find_pages() -> list[Page]:
    """Return all Markdown files of the repository."""
    paths = (
        path
        for path in ROOT.rglob("*.md")
        if not any(part.startswith(".") or part in _HIDDEN for part in path.relative_to(ROOT).parts)
    )
    return [Page(path) for path in sorted(paths)]


def read(name: str) -> Page:
    """Return a page of the documentation."""
    return Page(DOCS / name)


def _get_text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
