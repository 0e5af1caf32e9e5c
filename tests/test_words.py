"""The package speaks plain English: phrases that a reader has to translate first are not used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import massmigration

PACKAGE = Path(massmigration.__file__).parent
FILES = [path for ending in ("py", "py-tpl", "html", "js") for path in sorted(PACKAGE.rglob(f"*.{ending}"))]

PHRASES = {
    r"\bmend(s|ed|ing)?\b": "fix the problem",
    r"\bgo(es)? on\b": "continues where it stopped",
    r"\banew\b|\bonce more\b": "again",
    r"\bbehind (a|the|its|their) cursors?\b|\bcursors? behind\b|\bbehind key\b": "after",
    r"\btrouble that passes\b": "transient error",
    r"\bpass(ed|es|ing)? by\b|\bpass_by\b": "skipped",
    r"\bSo (many|much|often|far)\b|\bat most so \w+": "maximum number of, how much, how often, how far",
    r"\breckon(s|ed)?\b": "is calculated",
    r"\btaken? for\b": "counts as",
    r"\babout to be planned\b": "starting",
    r"\bset(s|ting)? going\b|\bsees? to it\b": "starts, makes sure",
    r"\b(quicker|seldom|in vain|forestall\w*)\b": "faster, rarely, without effect, faster than another",
    r"\bthat (are|were) migrated stay\b": "migrated rows are kept",
    r"\bworkers? will do\b": "using 1 worker",
    r"\btakes? (what|objects that) failed\b": "skip the failed objects",
    r"\bof (one's|its|our|his|their|your) own\b(?! [a-z])": "custom, or its own, their own before the noun",
    r"\b(nobody|somebody|whoever)\b": "another worker, another process, a person",
    r"\bnote_\w+|\bdef note\b": "record_…, learn_…, log_…",
    r"\bkinds? of (shards?|keys?)\b": "shard type, key type; kind is the kind of migration only",
}


def find(text: str) -> list[str]:
    """Return the phrases of the table that are in a text, each with its place and with what to write instead."""
    joined = re.sub(r'"\s*\n\s*f?"', "", text)  # a sentence that is written in parts
    flat = re.sub(r"\s+(# |\* )?", " ", joined)
    return [
        f"“{match.group()}” in “…{flat[max(0, match.start() - 40) : match.end() + 40]}…”; write: {instead}"
        for phrase, instead in PHRASES.items()
        for match in re.finditer(phrase, flat, re.IGNORECASE if "So (" not in phrase else 0)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_uses_plain_words(path):
    assert find(path.read_text(encoding="utf-8")) == []


def test_a_phrase_is_found_also_where_a_line_ends_in_it():
    assert find("# The worker goes on\n    # from there, once\n    # more.") != []
    assert find('raise Refused(\n    f"{key} goes "\n    f"on later."\n)') != []
    assert len(find("Nobody mends it anew.")) == 3
    assert find("It continues, so far without an error.") == []
