"""A pytest plugin: what is listed in `differences.toml` must fail, and nothing else may.

A test that is listed as different is run, and must fail. One that is listed as internal is not run.
An entry that names no test is an error.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tools.executor_tests.data import FILE, listed_names, read_suite

MUST_FAIL = ("differs", "fault")
RESULTS = "EXECUTOR_TESTS_RESULTS"
"""The environment variable with the path of the file to which counts are written."""


def names_of(item: pytest.Item) -> set[str]:
    """The names by which an entry may mean a test: with or without class and parameters."""
    function = getattr(item, "originalname", item.name)
    parent = item.parent.name if item.parent else ""
    return {function, item.name, f"{parent}::{function}", f"{parent}::{item.name}"}


def mark(items: list[pytest.Item], suite_name: str) -> None:
    """Mark the tests of a suite that are listed."""
    entries = {
        name: entry for entry in read_suite(suite_name)["difference"] for name in entry["tests"]
    }
    for item in items:
        for name in names_of(item) & entries.keys():
            entry = entries[name]
            item.user_properties.append(("kind", entry["kind"]))
            if entry["kind"] in MUST_FAIL:
                item.add_marker(pytest.mark.xfail(reason=entry["reason"], strict=True))
            else:
                item.add_marker(pytest.mark.skip(reason=entry["reason"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the suite."""
    parser.addoption("--executor-suite", required=True, help="cpython, loky, pebble or pytorch")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is listed.

    Raises:
        pytest.UsageError: an entry names no test.
    """
    name = config.getoption("--executor-suite")
    mark(items, name)
    there = {each for item in items for each in names_of(item)}
    if missing := listed_names(name) - there:
        raise pytest.UsageError(f"{FILE.name} lists tests that are not there: {sorted(missing)}")


_outcomes: dict[str, str] = {}
_WEIGHT = ("passes", "skips itself", "internal", "differs", "fault", "failed")
"""The outcomes of a test's phases: the last one counts."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a phase of a test has ended."""
    kind = dict(report.user_properties).get("kind", "")
    if report.failed:
        outcome = "failed"
    elif report.skipped:
        outcome = str(kind) if kind else "skips itself"
    else:
        outcome = "passes"
    last = _outcomes.get(report.nodeid, "passes")
    _outcomes[report.nodeid] = max(last, outcome, key=_WEIGHT.index)


def pytest_sessionfinish() -> None:
    """Write the counts."""
    if RESULTS in os.environ:
        Path(os.environ[RESULTS]).write_text(json.dumps(Counter(_outcomes.values())))
