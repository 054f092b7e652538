"""Await jobs in asyncio: one of them, several at once, with a time limit, and cancelled.

Run: python examples/in_your_program/asyncio_program.py
"""

import asyncio
import time

from compilepool import CompilePool


def compile_kernel(size: int) -> str:
    if size == 96:
        time.sleep(1000)  # stands for a compiler that hangs
    return f"matmul_{size}"


async def main() -> None:
    pool = CompilePool(max_workers=2)
    loop = asyncio.get_running_loop()

    print("one:      ", await loop.run_in_executor(pool, compile_kernel, 32))

    futures = [pool.options(name=f"matmul_{n}").submit(compile_kernel, n) for n in (32, 64)]
    print("several:  ", await asyncio.gather(*map(asyncio.wrap_future, futures)))

    hanging = pool.submit(compile_kernel, 96)
    try:
        async with asyncio.timeout(0.5):
            await asyncio.wrap_future(hanging)
    except TimeoutError:
        print("timed out: the job was cancelled, too:", hanging.cancelled())

    await asyncio.to_thread(pool.shutdown)  # it waits, and other tasks go on meanwhile


asyncio.run(main())
