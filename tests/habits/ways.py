"""How a program holds its pool, and lets go of it."""

from __future__ import annotations

import gc
from collections.abc import Callable

from tests.habits.habit import habit
from tests.habits.kit import Kit

Body = Callable[[], None]
ENDED = ("PoolClosed",)
KILLED = ("PoolClosed", "WorkersKilled", "CancelledError")


@habit("way")
def in_a_block(kit: Kit, body: Body) -> None:
    with kit.new_pool():
        body()


@habit("way")
def in_two_blocks(kit: Kit, body: Body) -> None:
    with kit.new_pool(), kit.new_pool():
        body()


@habit("way")
def with_options_in_a_block(kit: Kit, body: Body) -> None:
    with kit.new_pool().options(name="all"):
        body()


@habit("way")
def shut_down(kit: Kit, body: Body) -> None:
    pool = kit.new_pool()
    body()
    pool.shutdown()
    pool.shutdown()


@habit("way")
def shut_down_without_waiting(kit: Kit, body: Body) -> None:
    pool = kit.new_pool()
    body()
    pool.shutdown(wait=False)


@habit("way", allows=("CancelledError",))
def shut_down_and_cancel(kit: Kit, body: Body) -> None:
    pool = kit.new_pool()
    body()
    kit.submit("adds")
    pool.shutdown(cancel_futures=True)


@habit("way", allows=KILLED)
def kill_workers(kit: Kit, body: Body) -> None:
    pool = kit.new_pool()
    body()
    kit.submit("adds")
    kit.submit("is_endless")
    pool.kill_workers()


@habit("way", allows=ENDED)
def leave_it(kit: Kit, body: Body) -> None:
    kit.new_pool()
    body()


@habit("way", allows=ENDED)
def leave_three(kit: Kit, body: Body) -> None:
    for _ in range(3):
        kit.new_pool()
    body()
    kit.submit("is_endless")


@habit("way", allows=ENDED)
def drop_it(kit: Kit, body: Body) -> None:
    kit.new_pool()
    body()
    kit.pools.clear()
    gc.collect()


@habit("way", allows=ENDED)
def drop_it_in_a_circle(kit: Kit, body: Body) -> None:
    kit.new_pool()
    body()
    circle: list[object] = [kit.pools[:]]
    circle.append(circle)
    kit.pools.clear()


@habit("way")
def one_after_the_other(kit: Kit, body: Body) -> None:
    for _ in range(3):
        with kit.new_pool() as pool:
            kit.submit("adds")
        kit.pools.remove(pool)
    with kit.new_pool():
        body()
