"""Ends a run with the list of what this machine could not run, by name, with the reason."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped, without pytest's prefix."""
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ").strip() or "no reason given"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One paragraph per reason, with every test that it kept from running."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        by_reason[reason_of(report)].append(report.nodeid)
    if not by_reason:
        return
    total = sum(len(names) for names in by_reason.values())
    terminalreporter.section(f"not run here: {total} tests")
    for reason, names in sorted(by_reason.items()):
        terminalreporter.write_line(f"{reason}:")
        for name in sorted(names):
            terminalreporter.write_line(f"    {name}")
