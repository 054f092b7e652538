"""What programs do in threads, in callbacks and at exit."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from time import sleep  # before a habit replaces it
from typing import Any

from tests.habits.habit import habit, kit_habit
from tests.habits.kit import Kit, stop_timers


@kit_habit("busy")
def submits_in_threads(kit: Kit) -> None:
    with ThreadPoolExecutor(4) as threads:
        for number in range(16):
            threads.submit(kit.submit, "adds", f"thread {number}")


@kit_habit("busy", allows=("PoolClosed",))
def submits_in_a_daemon_for_ever(kit: Kit) -> None:
    def submit() -> None:
        for _ in range(150):
            future = kit.submit("adds", "daemon")
            if future is None:
                return
            wait([future])
            sleep(0.002)

    threading.Thread(target=submit, daemon=True).start()


@kit_habit("late", kind=4)
def submits_after_main(kit: Kit) -> None:
    """A thread goes on when the main thread has ended, and waits for its jobs."""
    if not {"leave_it", "leave_three"} & set(kit.plan.habits):
        return  # the pool ends earlier

    def submit() -> None:
        threading.main_thread().join(30)
        for _ in range(3):
            future = kit.submit("adds", "after main")
            if future is not None:
                wait([future], 30)

    threading.Thread(target=submit).start()


@kit_habit("busy", allows=("PoolClosed",))
def waits_in_threads(kit: Kit) -> None:
    """Threads that nobody joins wait for futures."""
    for slot in list(kit.futures):
        threading.Thread(target=kit.look_at, args=(slot,)).start()


@kit_habit("busy")
def waits_in_every_way(kit: Kit) -> None:
    kit.cancel_endless()
    for _ in as_completed(list(kit.futures.values()), 30):
        pass
    wait(list(kit.futures.values()), 30)


@kit_habit("busy", allows=("CancelledError",), group="asyncio")
def uses_asyncio(kit: Kit) -> None:
    async def use() -> None:
        loop = asyncio.get_running_loop()
        kit.cancel_endless()
        pool = kit.pools[0]
        try:
            assert await loop.run_in_executor(pool, abs, -1) == 1
        except Exception as error:
            if kit.is_allowed(error):
                return
            raise
        try:
            await asyncio.wait_for(loop.run_in_executor(pool, sleep, 1000), 0.2)
        except TimeoutError:
            return
        kit.fault("a job of 1000 s has ended")

    asyncio.run(use())


@kit_habit("busy")
def maps(kit: Kit) -> None:
    kit.cancel_endless()
    try:
        results = list(kit.pools[0].map(abs, range(-20, 0), chunksize=3, timeout=30))
    except Exception as error:
        if kit.is_allowed(error):
            return
        raise
    if results != list(range(20, 0, -1)):
        kit.fault("map is wrong")


@kit_habit("busy")
def leaves_a_map(kit: Kit) -> None:
    kit.cancel_endless()
    try:
        next(iter(kit.pools[0].map(abs, range(50), timeout=30)))
    except Exception as error:
        if not kit.is_allowed(error):
            raise


@habit(
    "callback",
    group="log",
    says=("exception calling callback.*", "(Traceback| |RuntimeError: mine).*|"),
)
def raises_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    raise RuntimeError("mine")


@habit("callback", allows=("PoolClosed",))
def submits_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    if len(kit.futures) < 40:
        kit.submit("adds", "callback")


@habit("callback")
def is_slow_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    sleep(0.02)


@habit("callback", allows=("CancelledError",))
def cancels_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    for other in list(kit.futures.values())[-2:]:
        other.cancel()


@habit("callback")
def looks_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    for pool in kit.pools:
        pool.stats()


@habit("callback")
def forks_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


@habit("callback", allows=("PoolClosed",))
def shuts_down_in_callbacks(kit: Kit, future: Future[Any]) -> None:
    """Once several jobs have ended."""
    if sum(each.done() for each in list(kit.futures.values())) > 5:
        kit.cancel_endless()
        for pool in list(kit.pools):
            pool.shutdown(wait=len(kit.pools) == 1)  # two callbacks would wait for each other


@kit_habit("late", allows=("PoolClosed",))
def submits_at_exit(kit: Kit) -> None:
    def submit() -> None:
        future = kit.submit("adds", "at exit")
        if future is not None:
            wait([future], 30)

    atexit.register(kit.submit, "is_endless", "at exit")
    atexit.register(submit)
    atexit.register(kit.cancel_endless)  # called first


@kit_habit("early", allows=("PoolClosed",))
def submits_at_the_very_exit(kit: Kit) -> None:
    """Registered before the pool's own, and called after it."""
    atexit.register(lambda: kit.submit("adds", "at exit"))


@kit_habit("early", allows=("PoolClosed",))
def makes_a_pool_at_exit(kit: Kit) -> None:
    def use() -> None:
        from compilepool import CompilePool

        try:
            with CompilePool(1) as pool:
                if pool.submit(abs, -1).result(30) != 1:
                    kit.fault("a pool at exit is wrong")
        except Exception as error:  # noqa: BLE001 - it is reported
            if not kit.is_allowed(error):
                kit.fault(f"a pool at exit fails: {type(error).__name__}: {error}")

    atexit.register(use)


@kit_habit("late", says=("Exception ignored in.*", "(Traceback| |RuntimeError: mine).*|"))
def raises_at_exit(kit: Kit) -> None:
    def fail() -> None:
        raise RuntimeError("mine")

    atexit.register(fail)


@kit_habit("late", statuses=(5,))
def exits_at_exit(kit: Kit) -> None:
    atexit.register(kit.look_back_and_exit, 5)


@kit_habit("late")
def shuts_down_at_exit(kit: Kit) -> None:
    for pool in kit.pools:
        atexit.register(pool.shutdown)
    atexit.register(kit.cancel_endless)  # called first


@kit_habit("late", is_deaf=True)
def clears_exit_handlers(kit: Kit) -> None:
    atexit._clear()
    atexit.register(kit.look_back)
    atexit.register(stop_timers)


class Finalized:
    """Uses the pool when it is collected, whenever that is."""

    def __init__(self, kit: Kit) -> None:
        self.kit = weakref.ref(kit)
        self.circle = self

    def __del__(self) -> None:
        kit = self.kit()
        if kit is not None and kit.pools and not kit.is_ending.is_set():
            kit.submit("adds", "finalizer")


@kit_habit("busy", allows=("PoolClosed",))
def uses_the_pool_in_finalizers(kit: Kit) -> None:
    for _ in range(6):
        Finalized(kit)
    kit.kept.append(Finalized(kit))


@kit_habit("busy", allows=("PoolClosed",))
def shuts_down_in_a_thread(kit: Kit) -> None:
    kit.cancel_endless()
    thread = threading.Thread(target=kit.pools[0].shutdown)
    thread.start()
    kit.at_last.append(thread.join)


@kit_habit("busy", allows=("PoolClosed", "WorkersKilled", "CancelledError"))
def kills_workers_in_a_thread(kit: Kit) -> None:
    thread = threading.Thread(target=kit.pools[0].kill_workers)
    thread.start()
    kit.at_last.append(thread.join)
