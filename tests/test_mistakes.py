"""What an author can do wrong: each row of the table in the documentation is tried, and ends as the page says."""

from __future__ import annotations

import pytest

from tests.markdown import read
from tests.mistakes import CASES, OUTCOMES, Trial
from tests.throwaway import throwaway_apps

PAGE = read("mistakes.md")
TABLES = [PAGE.get_section(heading).rows for heading in PAGE.headings[1:] if heading != "Outcomes"]
ROWS = {row[0].strip("`"): row for rows in TABLES for row in rows}
DATABASES = ["default", "postgres"]


@pytest.fixture
def trial(tmp_path, settings, db_alias):
    with throwaway_apps(tmp_path, settings) as maker:
        yield Trial(maker, db_alias)


def test_each_row_has_its_case_and_each_case_its_row():
    assert sorted(ROWS) == sorted(CASES)
    assert len(ROWS) == sum(map(len, TABLES)), "two rows have the same id"


def test_the_outcomes_are_explained_and_no_other():
    assert PAGE.get_section("Outcomes").terms == list(OUTCOMES)


@pytest.mark.parametrize("identifier", ROWS)
@pytest.mark.django_db(transaction=True, databases=DATABASES)
def test_it_ends_as_the_page_says(identifier, trial, db_alias):
    case, (_, _, outcome, what) = CASES[identifier], ROWS[identifier]
    ended = trial.run(case) if isinstance(case, type) else case(trial)
    assert what
    assert ended == outcome, trial.sentence
