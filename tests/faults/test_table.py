"""The page in the docs and the suite tell of the same faults; ``tally`` looks whether each was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import table, tally


def test_the_page_has_the_faults_of_the_suite_and_no_others():
    assert list(table.read_page()) == table.list_rows()
    assert all(table.read_page().values())


def test_the_page_tells_what_the_suite_expects():
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.render(table.read_page()) in text


def make_report(module: str, *properties: Any) -> pytest.TestReport:
    nodeid = f"{tally.FOLDER}/{module}::test_something"
    place = (nodeid, None, "test_something")
    return pytest.TestReport(nodeid, place, {}, "passed", None, "teardown", user_properties=list(properties))


def end_session(rows: list[tuple[str, str]], modules: set[str], **options: Any) -> tuple[int, tally.Tally]:
    """Let two processes tell that each of these faults was made once in each of them, and end the session."""
    made = tally.Tally()
    properties = [(tally.PROPERTY, [fault, database, 1]) for fault, database in rows]
    for module in modules:
        made.pytest_runtest_logreport(make_report(module))
    for _ in range(2):
        made.pytest_runtest_logreport(make_report("test_steps.py", *properties))
    config = SimpleNamespace(option=SimpleNamespace(keyword=options.get("keyword", "")), args=options.get("args", []))
    session: Any = SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=config)
    made.pytest_sessionfinish(session)
    return session.exitstatus, made


def test_a_session_that_ran_the_whole_folder_made_each_fault():
    rows = [row for row in table.list_rows() if row[1] in table.SQL]
    code, made = end_session(rows, tally.MODULES)
    assert (code, set(made.counts.values())) == (pytest.ExitCode.OK, {2})
    assert end_session(rows[1:], tally.MODULES)[0] == pytest.ExitCode.TESTS_FAILED
    assert end_session(rows[1:], {"test_steps.py"})[0] == pytest.ExitCode.OK
    assert end_session(rows[1:], tally.MODULES, keyword="kill")[0] == pytest.ExitCode.OK
