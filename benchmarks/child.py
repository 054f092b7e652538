"""Runs one measurement, in a process of its own: `python -m benchmarks.child FIGURE PEER SCALE`.

The process prints one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main(figure: str, peer: str, scale: str) -> None:
    """Measure, print, and exit at once. The parent process kills whatever is left."""
    from benchmarks.metric import Scale

    module = importlib.import_module(f"benchmarks.figures.{figure}")
    options = Scale(**json.loads(scale))
    is_first = peer == "prepare"
    values = module.prepare(options.folder) if is_first else module.measure(peer, options)
    print(json.dumps(values), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
