"""The page in the docs and the suite tell of the same faults; by its name this runs behind the other tests here."""

from __future__ import annotations

from pathlib import Path

from tests.faults import table

MODULES = {"test_steps.py", "test_random.py", "test_machine.py", "test_pairs.py"}


def test_the_page_has_the_faults_of_the_suite_and_no_others():
    assert list(table.read_page()) == table.list_rows()
    assert all(table.read_page().values())


def test_the_page_tells_what_the_suite_expects():
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.render(table.read_page()) in text


def test_every_fault_was_made_where_the_whole_folder_was_run(request):
    here = Path(__file__).parent
    collected = [item for item in request.session.items if item.path.parent == here]
    has_all = {item.path.name for item in collected} >= MODULES and not request.config.option.keyword
    is_whole = has_all and not any("::" in argument for argument in request.config.args)
    if not is_whole or request.session.testsfailed:
        return
    wanted = {row for row in table.list_rows() if row[1] in table.SQL}
    assert {row for row, number in table.counts.items() if number} == wanted
