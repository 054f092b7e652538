"""Run the tests of other executors against `CompilePool`, and compare with what is listed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.executor_tests.data import ONLY_IF_NAMED, SUITES, read_suite
from tools.executor_tests.marks import RESULTS
from tools.executor_tests.page import PAGE, ROOT, load_counts, read_counts, render

CACHE = ROOT / ".cache" / "executor-tests"


def main() -> int:
    """Run suites.

    Returns:
        The exit status: 1 if a suite or the page is not as listed.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.executor_tests", description=__doc__)
    default = [name for name in SUITES if name not in ONLY_IF_NAMED]
    names = f"of {', '.join(SUITES)}; default: {' '.join(default)}"
    parser.add_argument("suite", nargs="*", default=default, help=names)
    parser.add_argument("--write", action="store_true", help="write docs/executor_tests.md")
    arguments = parser.parse_args()
    counts = read_counts(PAGE.read_text()) if PAGE.exists() else {}
    is_good = True
    for name in arguments.suite:
        found = run(name)
        is_good = is_good and found is not None and not found.get("failed")
        counts[name] = found or {}
    text = render(counts)
    if arguments.write:
        PAGE.write_text(text)
    elif text != PAGE.read_text():
        print(f"{PAGE} does not say what was found: run again with --write", file=sys.stderr)
        is_good = False
    return 0 if is_good else 1


def run(name: str) -> dict[str, int] | None:
    """Run a suite.

    Returns:
        How many tests have which outcome; None if nothing could be run.
    """
    fetch = [ROOT / "tools" / "fetch_executor_tests.sh", name, sys.executable]
    subprocess.run(fetch, check=True)
    folder = CACHE / name
    if not folder.exists():
        return None
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) / "results.json"
        environment = {
            **os.environ,
            RESULTS: str(results),
            "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "src"))),
            "COMPILEPOOL_CRASH_DIR": str(Path(temporary) / "crashes"),
        }
        plugin = ["-p", "tools.executor_tests.marks", "--executor-suite", name]
        options = [*plugin, *read_suite(name)["pytest"]]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--tb=short",
                "-p",
                "no:cacheprovider",
                *options,
            ],
            cwd=ROOT if name == "cpython" else folder,
            env=environment,
            check=False,
        )
        return load_counts(results) if results.exists() else None


if __name__ == "__main__":
    sys.exit(main())
