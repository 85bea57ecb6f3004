"""Tests belong to the tier of their directory; every tier is counted, and a tier asked for must not be skipped whole.

A pytest plugin, loaded by ``tests/conftest.py``. ``--tiers unit,root`` picks the tiers and makes them required: if one
of them has run no test, the session fails even though nothing did. Without it whatever was named is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.framework import probes
from tests.framework.patience import scaled

TIERS = ("unit", "root", "cri", "vm")
NEED_ROOT = ("root", "cri")


def tier_of(path: Path) -> str | None:
    """The tier of a test file: the directory below ``tests/``."""
    tests = Path(__file__).parents[1]
    if not path.is_relative_to(tests):
        return None
    name = path.relative_to(tests).parts[0]
    return name if name in TIERS else None


class TierCounter:
    """Counts the outcome of each test under its tier: ``passed``, ``failed``, ``skipped``, ``error``."""

    def __init__(self, required: tuple[str, ...]) -> None:
        self.required = required
        self.outcomes: dict[str, Counter[str]] = {tier: Counter() for tier in TIERS}

    def empty(self) -> list[str]:
        """Required tiers of which no test ran."""
        return [t for t in self.required if not self.outcomes[t]["passed"] + self.outcomes[t]["failed"]]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        tier = tier_of(item.path)
        if tier is not None:
            if report.when == "call" or (report.when == "setup" and report.skipped):
                self.outcomes[tier][report.outcome] += 1
            elif report.failed:
                self.outcomes[tier]["error"] += 1
        return report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.required:
            items[:] = [item for item in items if tier_of(item.path) in self.required]
        for item in items:
            # A test's own limit; the others have that of --timeout, which whoever sets the factor sets, too.
            if (own := item.get_closest_marker("timeout")) is not None and own.args:
                item.add_marker(pytest.mark.timeout(scaled(own.args[0])), append=False)
        # The fast tier first: what fails there says more than what fails above it.
        items.sort(key=lambda item: TIERS.index(tier_of(item.path) or TIERS[-1]))
        if not probes.is_root():
            for item in items:
                if tier_of(item.path) in NEED_ROOT:
                    item.add_marker(pytest.mark.skip(reason="needs root"))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.empty() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("tiers")
        for tier in TIERS:
            count = self.outcomes[tier]
            if not count and tier not in self.required:
                continue
            ran = count["passed"] + count["failed"]
            line = f"tier {tier}: {ran} ran ({count['passed']} passed, {count['failed']} failed)"
            line += f", {count['skipped']} skipped"
            if count["error"]:
                line += f", {count['error']} errors in set-up or teardown"
            if tier in self.empty():
                line += "  <- asked for, and not one test of it ran"
            terminalreporter.write_line(line, red=tier in self.empty())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tiers", default="", help=f"comma-separated tiers to run, each required: {', '.join(TIERS)}")


def pytest_configure(config: pytest.Config) -> None:
    required = tuple(name for name in str(config.getoption("--tiers")).split(",") if name)
    unknown = set(required) - set(TIERS)
    if unknown:
        raise pytest.UsageError(f"--tiers: unknown {', '.join(sorted(unknown))}; known are {', '.join(TIERS)}")
    config.pluginmanager.register(TierCounter(required), "podrt-tiers")
