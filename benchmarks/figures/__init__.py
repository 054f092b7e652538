"""The figures, one module each, with a `FIGURE` and a function `measure(peer, scale)`.

A function `prepare(folder)`, where there is one, is called once, in a process of its own. A
function `missing()` returns the reason why a figure cannot be measured here, or "".
"""

NAMES = (
    "cold_start",
    "warm_start",
    "latency",
    "throughput",
    "payloads",
    "scaling",
    "queued",
    "big_client",
    "crash",
    "client_death",
    "shutdown",
    "triton_kernels",
    "inductor_kernels",
)
