"""Adds up the faults that a session made, in however many processes: each test's report carries what it counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final, cast

import pytest

FOLDER: Final = "tests/faults"
MODULES: Final = {"test_steps.py", "test_random.py", "test_machine.py", "test_pairs.py", "test_kill.py"}
"""A session that ran tests of all of them ran the whole folder."""

PROPERTY: Final = "fault"


@pytest.fixture(autouse=True)
def counted_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put what the test counts into its report."""
    from tests.faults import table

    table.counts.clear()
    yield
    for (fault, database), times in table.counts.items():
        request.node.user_properties.append((PROPERTY, [fault, database, times]))


class Tally:
    """Reads the reports; at the end it looks whether each fault was made, and writes the page if that is asked for."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._modules: set[str] = set()
        self._missing: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what one test counted; under pytest-xdist the report comes from a worker."""
        path = PurePosixPath(report.nodeid.partition("::")[0])
        if str(path.parent) == FOLDER:
            self._modules.add(path.name)
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == PROPERTY:
                    fault, database, times = cast("tuple[str, str, int]", value)
                    self.counts[fault, database] += times

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session that ran the whole folder without making each fault."""
        if session.exitstatus != pytest.ExitCode.OK or not self.counts:
            return
        from tests.faults import table

        if os.environ.get(table.WRITE):
            table.write_page(self.counts)
        if self._is_whole(session.config):
            wanted = {row for row in table.list_rows() if row[1] in table.SQL}
            self._missing = [f"{fault} on {database}" for fault, database in wanted if not self.counts[fault, database]]
            if self._missing:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _is_whole(self, config: pytest.Config) -> bool:
        is_chosen = config.option.keyword or any("::" in argument for argument in config.args)
        return not is_chosen and self._modules >= MODULES

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name the faults that were not made."""
        if self._missing:
            terminalreporter.section("faults that docs/faults.md names and that were not made", red=True)
            for line in sorted(self._missing):
                terminalreporter.line(line, red=True)
