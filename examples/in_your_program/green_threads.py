"""Wait for jobs in green threads, while other green threads go on.

Run: python examples/in_your_program/green_threads.py [gevent | eventlet]
"""

import sys

if "eventlet" in sys.argv:
    import eventlet

    eventlet.monkey_patch()  # before all other imports
    spawn, wait_for = eventlet.spawn, eventlet.greenthread.GreenThread.wait
else:
    import gevent
    import gevent.monkey

    gevent.monkey.patch_all()  # before all other imports
    spawn, wait_for = gevent.spawn, gevent.Greenlet.get

import time

from compilepool import CompilePool

ticks: list[float] = []


def tick() -> None:
    """Another green thread of the program."""
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.01)


def compile_kernel(size: int) -> str:
    time.sleep(0.2)
    return f"matmul_{size}"


def serve(size: int) -> str:
    """What a green thread does for one request."""
    return pool.submit(compile_kernel, size).result(timeout=30)


with CompilePool(2) as pool:
    spawn(tick)
    requests = [spawn(serve, size) for size in (32, 64, 96, 128)]
    print("results:", [wait_for(request) for request in requests])
    print("other green threads ran meanwhile:", len(ticks) > 10)
