"""What is measured, a module each, which has a `FIGURE` and `measure(peer, scale)`.

`prepare(folder)`, where there is one, is called once, in a process of its own.
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
