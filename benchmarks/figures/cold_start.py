"""The time from before the exec of a new interpreter to its first result."""

from __future__ import annotations

from statistics import median

from benchmarks.fresh import fresh_python
from benchmarks.metric import Figure, Metric, Scale, Value

FIGURE = Figure(
    "Cold start",
    {"first_ms": Metric("fresh interpreter to first result", "ms", headline=True)},
)

PROGRAM = """\
import sys, time
from benchmarks.peers import make
pool = make(sys.argv[1], 2)
pool.submit(abs, -1).result(60)
print(time.monotonic(), flush=True)
pool.shutdown()
"""


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    starts = []
    for _ in range(2 if scale.quick else 6):
        began, ended = fresh_python(PROGRAM, peer)
        starts.append(1000 * (float(ended) - began))
    return {"first_ms": median(starts[1:])}  # without the first, which may compile bytecode
