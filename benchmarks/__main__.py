"""Compare compilepool with other pools of worker processes.

Each measurement runs in a process of its own, and the pools take turns. `make bench` runs all of
them, and writes docs/benchmarks.json, and from it the plot and the table of docs/comparison.md.
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
    """Make the type of an argument: a list of known names, separated by commas."""

    def parse(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return text.split(",")

    return parse


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", type=names(peers.NAMES), default=list(peers.NAMES))
    parser.add_argument("--figures", type=names(figures.NAMES), default=list(figures.NAMES))
    parser.add_argument("--rounds", type=int, help="rounds, in place of each figure's own number")
    parser.add_argument("--out", type=Path, help="JSON file to write all results to")
    parser.add_argument("--quick", action="store_true", help="test the benchmarks, measure little")
    parser.add_argument("--client-gb", type=float, default=8.0, help="memory of a big client, GB")
    options = parser.parse_args(arguments)
    scale = Scale(options.quick, options.client_gb)
    rounds = options.rounds or (1 if options.quick else None)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception: it ends what runs
    results = suite.run(options.figures, options.peers, rounds, scale, say)
    table.show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
