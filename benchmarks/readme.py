"""Write the README's table of benchmarks, or check that it agrees with its JSON file.

    python -m benchmarks.readme FILE.json README.md [--check]

It stands between two markers, and has nothing that is not in the file.
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
    """The table, in Markdown, and what it was measured on."""
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


def rewritten(readme: str, table: str) -> str:
    """The README with this between the markers.

    Raises:
        ValueError: there are no markers.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN.strip()} with its {END.strip()}")
    return before + begin + table + end + after


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.readme", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("readme", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    options = parser.parse_args()
    readme = options.readme.read_text()
    wanted = rewritten(readme, table_of(json.loads(options.results.read_text())))
    if not options.check:
        options.readme.write_text(wanted)
    elif wanted != readme:
        sys.exit(f"{options.readme} does not agree with {options.results}: write it anew")


if __name__ == "__main__":
    main()
