"""Write the table of benchmarks into a page, or check that the page agrees with the results.

    python -m benchmarks.comparison_page RESULTS.json PAGE.md [--check]

The table stands between two markers, and holds nothing that is not in the results. `make bench`
writes it into docs/comparison.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import cell, peers_of, rows

BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"


def table_of(results: dict[str, Any]) -> str:
    """The table in Markdown, with the machine that it was measured on."""
    peers = peers_of(results)
    lines = ["| | " + " | ".join(peers) + " |", "|---|" + "---:|" * len(peers)]
    title = ""
    for figure, label, cells in rows(results, headlines=True):
        if figure != title:
            title = figure
            lines.append(f"| **{title}** |" + " |" * len(peers))
        lines.append(f"| {label} | " + " | ".join(cell(cells.get(peer)) for peer in peers) + " |")
    facts = dict(results["machine"])
    date = facts.pop("date")
    machine = ", ".join(f"{name} {fact}" for name, fact in facts.items())
    lines += ["", f"Medians, measured on {date}: {machine}."]
    lines += [f"Without {peer}: {why}." for peer, why in results["skipped"].items()]
    return "\n".join(lines) + "\n"


def rewritten(page: str, table: str) -> str:
    """The page with `table` between its markers.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN.strip()} with its {END.strip()}")
    return before + begin + table + end + after


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.comparison_page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    options = parser.parse_args()
    page = options.page.read_text()
    wanted = rewritten(page, table_of(json.loads(options.results.read_text())))
    if not options.check:
        options.page.write_text(wanted)
    elif wanted != page:
        sys.exit(f"{options.page} does not agree with {options.results}: write it again")


if __name__ == "__main__":
    main()
