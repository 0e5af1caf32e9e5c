"""The page in the docs and the suite tell of the same faults; ``tally`` looks whether each was made."""

from __future__ import annotations

from tests.faults import table


def test_the_page_has_the_faults_of_the_suite_and_no_others():
    assert list(table.read_page()) == table.list_rows()
    assert all(table.read_page().values())


def test_the_page_tells_what_the_suite_expects():
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.render(table.read_page()) in text
