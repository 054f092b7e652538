"""Compare compilepool with other pools of worker processes.

Each measurement is a process of its own; peers take turns. `make bench` is the whole of it, and
writes docs/benchmarks.json, and from that the plot and the table of docs/comparison.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import figures, peers, suite, table
from benchmarks.metric import Scale


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """An argument's type: names, with commas between, of those known."""

    def parse(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return text.split(",")

    return parse


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", type=names(peers.NAMES), default=list(peers.NAMES))
    parser.add_argument("--figures", type=names(figures.NAMES), default=list(figures.NAMES))
    parser.add_argument("--rounds", type=int, help="instead of each figure's own")
    parser.add_argument("--out", type=Path, help="a JSON file for all that was measured")
    parser.add_argument("--quick", action="store_true", help="only to see that it works")
    parser.add_argument("--client-gb", type=float, default=8.0, help="memory of a big client")
    options = parser.parse_args(arguments)
    scale = Scale(options.quick, options.client_gb)
    rounds = options.rounds or (1 if options.quick else None)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending what runs
    results = suite.run(options.figures, options.peers, rounds, scale, say)
    table.show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
