"""`docs/executor_tests.md`, made of `differences.toml` and the counts of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tools.executor_tests.data import SUITES, read_suite

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "executor_tests.md"
COUNTED = ("passes", "differs", "fault", "internal", "skips itself")

HEAD = """# The tests of other executors

The tests of CPython's `ProcessPoolExecutor`, of loky and of pebble run against `CompilePool`, and
those of PyTorch's compile workers against [the integration](pytorch.md). The test files are the
projects' own, fetched and not changed; a thin layer gives our pool the names that they use. This
page lists every test that does not pass, with the reason.

```sh
.venv/bin/python -m tools.executor_tests
```

runs them, except PyTorch's. It fails if a test fails that is not listed, if one passes that is, or
if this page is out of date. With `--write`, it writes this page from
`tools/executor_tests/differences.toml`. `make test` runs CPython's part.
`tools/fetch_executor_tests.sh` gets the tests.

PyTorch's tests are in no package. They need a checkout of PyTorch, and an interpreter with torch
and `expecttest`:

```sh
PYTORCH_SOURCE=~/pytorch .venv-torch-2.15.0/bin/python -m tools.executor_tests pytorch
```

"""

COLUMNS = {
    "passes": "pass",
    "differs": "differ on purpose",
    "fault": "fail by a fault of ours",
    "internal": "not run",
    "skips itself": "skip themselves",
}

TITLES = {
    "differs": "Differs on purpose",
    "fault": "Faults of ours, not fixed yet",
    "internal": "Not run",
}


def read_counts(text: str) -> dict[str, dict[str, int]]:
    """The counts of the last run, which the page keeps in its table."""
    counts = {}
    for name in SUITES:
        title = re.escape(read_suite(name)["title"])
        row = re.search(rf"^\| {title} \|(.+)\|$", text, re.MULTILINE)
        if row:
            numbers = [int(cell) for cell in row[1].split("|")]
            counts[name] = dict(zip(COUNTED, numbers, strict=True))
    return counts


def render(counts: dict[str, dict[str, int]]) -> str:
    """The page."""
    lines = [HEAD]
    lines += [f"| tests of | {' | '.join(COLUMNS[each] for each in COUNTED)} |\n"]
    lines += ["|---|" + "---:|" * len(COUNTED) + "\n"]
    for name in SUITES:
        numbers = [str(counts.get(name, {}).get(each, 0)) for each in COUNTED]
        lines.append(f"| {read_suite(name)['title']} | {' | '.join(numbers)} |\n")
    for name in SUITES:
        lines += _suite(read_suite(name))
    return "".join(lines)


def _suite(suite: dict[str, Any]) -> list[str]:
    lines = [f"\n## {suite['title']}\n\n{suite['about'].strip()}\n"]
    lines += ["\n| theirs | on `CompilePool` |\n|---|---|\n"]
    lines += [f"| {theirs} | {ours} |\n" for theirs, ours in suite["mapping"]]
    for kind, title in TITLES.items():
        entries = [each for each in suite["difference"] if each["kind"] == kind]
        if entries:
            lines.append(f"\n### {title}: {suite['title']}\n\n| tests | reason |\n|---|---|\n")
        for entry in entries:
            names = ", ".join(f"`{_cell(name)}`" for name in entry["tests"])
            lines.append(f"| {names} | {_cell(entry['reason'])} |\n")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def load_counts(path: Path) -> dict[str, int]:
    """The counts that the plugin has written."""
    counts: dict[str, int] = json.loads(path.read_text())
    return counts
