"""The client is killed by SIGKILL: the time until the last process of its pool is gone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

import psutil

from benchmarks.jobs import WAIT_S, all_answer, sleep_in_child, wait_for_files
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

BOUND_S = 5.0

FIGURE = Figure(
    "The client is killed",
    {
        "idle_ms": Metric("idle pool: to the last process's end", "ms", headline=True),
        "busy_ms": Metric(
            "jobs running that have children: to the last process's end", "ms", headline=True
        ),
    },
    rounds=2,
)

PROGRAM = """\
import sys
from benchmarks.figures.client_death import client
client(*sys.argv[1:])
"""


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    bound_s = 1.0 if scale.quick else BOUND_S
    return {f"{kind}_ms": _killed(peer, kind, bound_s) for kind in ("idle", "busy")}


def client(peer: str, kind: str, folder: str) -> None:
    """Run in the process that is killed: make a pool and keep it idle or busy."""
    pool = make(peer, 2)
    all_answer(pool, 2)
    if kind == "busy":
        for _ in range(2):
            pool.submit(sleep_in_child, folder)
        wait_for_files(folder, 2)
    print("ready", flush=True)
    time.sleep(WAIT_S)


def _killed(peer: str, kind: str, bound_s: float) -> Value:
    """Return the ms until all processes are gone; words if some are left."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, peer, kind, folder],
            stdout=subprocess.PIPE,
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the client has failed")
        time.sleep(0.2)
        below = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
        poll = select.poll()
        for pid in [process.pid, *below]:
            fd = os.pidfd_open(pid)
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        alive = 1 + len(below)
        began = time.monotonic()
        process.kill()
        while alive:
            left_s = began + bound_s - time.monotonic()
            if left_s <= 0:
                return f"{alive} of {len(below)} left after {bound_s:.0f} s"
            for fd, _ in poll.poll(1000 * left_s):
                poll.unregister(fd)
                alive -= 1
        return 1000 * (time.monotonic() - began)
