"""A service that lets its running jobs finish when it gets SIGTERM, also as PID 1.

Run: python examples/in_your_program/service.py, and then kill it
"""

import signal
import time

from compilepool import CompilePool


def compile_kernel(size: int) -> str:
    time.sleep(0.5)
    return f"matmul_{size}"


# Before the pool starts its threads. The signal then waits for `sigwait`, however early it comes; a
# handler may run just before a call of `signal.pause`, which then waits for ever.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pool = CompilePool(max_workers=2)
futures = [pool.submit(compile_kernel, size) for size in range(1, 1001)]
print(f"serving, {futures[0].result()} first", flush=True)
reason = signal.sigwait({signal.SIGTERM}).name
signal.pthread_sigmask(
    signal.SIG_UNBLOCK, {signal.SIGTERM}
)  # a second one ends the program at once
pool.shutdown(cancel_futures=True)  # waits for the jobs that run
done = sum(not future.cancelled() for future in futures)
print(f"{reason}: {done} jobs done, {len(futures) - done} cancelled")
