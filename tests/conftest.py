"""In CI (the variable CI is set) a skip fails the run, unless its reason names something that CI cannot install."""

from __future__ import annotations

import os

import pytest

INCURABLE = ("needs a GPU", "needs Arm", "needs x86-64", "this system cannot fork", "needs a kernel with", "needs libseccomp")
_cured_by_installing: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get("CI"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not any(allowed in reason for allowed in INCURABLE):
        _cured_by_installing.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _cured_by_installing and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _cured_by_installing:
        terminalreporter.write_line(f"skipped in CI, which must install what is missing: {line}", red=True)
