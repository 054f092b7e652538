"""Large arguments and large results, as bytes and as NumPy arrays.

The data is made beforehand, once in the client and once in each worker. The receiver reads a byte
of each page, so that a receiver that only maps memory must load it, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from statistics import median
from typing import Any

from benchmarks.jobs import WAIT_S, all_answer
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

KIB, MIB = 1 << 10, 1 << 20
CALLS = {4 * KIB: 300, 90 * KIB: 200, MIB: 50, 16 * MIB: 9, 256 * MIB: 3}
"""The number of calls by the size of the payload."""
HEADLINES = {"bytes_to_90KiB", "bytes_from_16MiB", "array_to_256MiB", "array_from_256MiB"}
KINDS = {"bytes": "bytes", "array": "a NumPy array"}
PAGE = 4096


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def _key(kind: str, way: str, size: int) -> str:
    return f"{kind}_{way}_{_size(size).replace(' ', '')}"


FIGURE = Figure(
    "Payloads",
    {
        key: Metric(
            f"{_size(size)} of {name} {way} a job",
            "MB/s",
            more_is_better=True,
            headline=key in HEADLINES,
        )
        for kind, name in KINDS.items()
        for size in CALLS
        for way in ("to", "from")
        for key in [_key(kind, way, size)]
    },
    rounds=2,
    timeout_s=240,
)


@cache
def _numpy() -> Any:
    import numpy as np

    return np


@lru_cache(maxsize=1)
def payload(kind: str, size: int) -> Any:
    """Return the payload. Only the last one is kept, because it may be large."""
    return b"x" * size if kind == "bytes" else _numpy().full(size, 120, dtype="uint8")


def receive(data: Any) -> int:
    """Read a byte of each page."""
    pages = data[::PAGE]
    return len(bytes(pages))


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    pool = make(peer, 2)
    all_answer(pool, 2)
    values: dict[str, Value] = {}
    for kind in KINDS if find_spec("numpy") else ["bytes"]:
        for size, calls in CALLS.items():
            if scale.quick and size > MIB:
                continue
            data = payload(kind, size)

            def to_job(data: Any = data) -> None:
                pool.submit(receive, data).result(WAIT_S)

            def from_job(kind: str = kind, size: int = size) -> None:
                receive(pool.submit(payload, kind, size).result(WAIT_S))

            # Each worker makes the payload before the clock starts.
            for future in [pool.submit(payload, kind, size) for _ in range(4)]:
                future.result(WAIT_S)
            count = 3 if scale.quick else calls
            values[_key(kind, "to", size)] = size / 1e6 / _seconds(to_job, count)
            values[_key(kind, "from", size)] = size / 1e6 / _seconds(from_job, count)
    pool.shutdown()
    return values


def _seconds(call: Callable[[], None], count: int) -> float:
    times = []
    for _ in range(count + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times[1:])
