"""What `differences.toml` says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "differences.toml"
SUITES = ("cpython", "loky", "pebble", "pytorch")
ONLY_IF_NAMED = ("pytorch",)
"""The suites that need torch, and a checkout of the tests."""


def read_suite(name: str) -> dict[str, Any]:
    """What is listed of a suite."""
    found: dict[str, Any] = tomllib.loads(FILE.read_text())[name]
    return found


def listed_names(name: str) -> set[str]:
    """The tests that the entries of a suite name."""
    return {test for entry in read_suite(name)["difference"] for test in entry["tests"]}
