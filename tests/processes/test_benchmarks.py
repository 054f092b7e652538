"""The benchmarks run, and the comparison page says what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "comparison.md"


def python_m(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_quick_run_is_measured_and_gets_into_a_page(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "comparison.md"
    # Killed clients leave workers behind; the suite must not.
    figures = "latency,throughput,client_death"
    chosen = ("--peers", "compilepool,fork", "--figures", figures)
    run = python_m("benchmarks", "--quick", *chosen, "--out", results)
    assert run.returncode == 0, run.stderr
    found = json.loads(results.read_text())["figures"]
    assert list(found) == figures.split(",")
    for figure in found.values():
        for peer in ("compilepool", "fork"):
            assert figure["runs"][peer]
            assert set(figure["summary"][peer]) == set(figure["metrics"])
    for name in ("latency", "throughput"):
        for peer in ("compilepool", "fork"):
            assert all(each["median"] > 0 for each in found[name]["summary"][peer].values())

    page.write_text("before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter\n")
    assert python_m("benchmarks.comparison_page", results, page, "--check").returncode == 1
    assert python_m("benchmarks.comparison_page", results, page).returncode == 0
    assert python_m("benchmarks.comparison_page", results, page, "--check").returncode == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| submit to result, p50, µs |" in text


def test_the_comparison_page_agrees_with_the_committed_results() -> None:
    check = python_m("benchmarks.comparison_page", RESULTS, PAGE, "--check")
    assert check.returncode == 0, check.stderr
