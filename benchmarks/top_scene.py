"""Something for `compilepool top` to show: two pools, eight clients, a crash and a hang.

`python -m benchmarks.top_scene` starts it, says "ready", and ends it when its input ends. Seven
programs share a pool of two workers, and an eighth has one of its own. Jobs of the shared pool are
kernels that take a second; one crashes, and one never ends.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

_SHARED = 7
_KERNELS = 100
_KERNEL_S = 1.0


def kernel(number: int) -> int:
    """A job with two phases."""
    from compilepool import report_phase

    for phase in ("llir", "ptxas"):
        report_phase(phase)
        until = time.monotonic() + _KERNEL_S / 2
        while time.monotonic() < until:
            time.sleep(0.01)
    return number


def crash() -> None:
    """A job that reads address 0."""
    ctypes.string_at(0)


def hang() -> None:
    """A job that never ends."""
    from compilepool import report_phase

    report_phase("regalloc")
    while True:
        time.sleep(3600)


def program(number: int) -> None:
    """One client: submits its kernels, says so, and waits until its input ends."""
    from compilepool import CompilePool

    is_shared = number < _SHARED
    pool = CompilePool(max_workers=2, shared=is_shared, single_flight=is_shared)
    if number == 0:
        pool.options(name="matmul_that_hangs").submit(hang)
    if number in (0, _SHARED):
        pool.options(name="bad_kernel").submit(crash).exception()
    for each in range(_KERNELS):
        name = f"triton_fused_add_rms_norm_{each:02}"
        pool.options(name=name).submit(kernel, each)
    print("ready", flush=True)
    sys.stdin.read()
    pool.shutdown(wait=False, cancel_futures=True)
    os._exit(0)


def main() -> None:
    """Start all programs, and end them."""
    command = [sys.executable, "-m", "benchmarks.top_scene"]
    programs = [
        subprocess.Popen(
            [*command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "RANK": str(number)},
        )
        for number in range(_SHARED + 1)
    ]
    for each in programs:
        assert each.stdout is not None
        each.stdout.readline()
    print("ready", flush=True)
    sys.stdin.read()
    for each in programs:
        assert each.stdin is not None
        each.stdin.close()
    for each in programs:
        each.wait(60)


if __name__ == "__main__":
    if sys.argv[1:]:
        program(int(sys.argv[1]))
    else:
        main()
