"""What programs fork and start beside their pool."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
import threading
from time import sleep  # before a habit replaces it
from typing import Any

from tests.habits.habit import Point, habit, kit_habit
from tests.habits.kit import Kit


def stay() -> None:
    while True:
        sleep(1000)


def use_a_pool() -> None:
    from compilepool import CompilePool, SerializationError

    if not sys.executable:
        return  # a habit has taken it
    with contextlib.suppress(SerializationError), CompilePool(1) as pool:  # or the pickles
        assert pool.submit(abs, -1).result(30) == 1


def use_a_pool_and_leave_it(kit: Kit) -> None:
    from compilepool import CompilePool

    pool = CompilePool(1)
    try:
        if pool.submit(abs, -1).result(30) != 1:
            kit.fault("the pool of a child is wrong")
    except Exception as error:  # noqa: BLE001 - it is reported
        if not kit.is_allowed(error):
            kit.fault(f"the pool of a child fails: {type(error).__name__}: {error}")
    kit.kept.append(pool)


@kit_habit("made")
def forks_with_an_idle_pool(kit: Kit) -> None:
    kit.in_child(kit.child_looks_back)


@kit_habit("started")
def forks(kit: Kit) -> None:
    kit.in_child(kit.child_looks_back)


@kit_habit("busy")
def forks_while_jobs_run(kit: Kit) -> None:
    kit.in_child(kit.child_looks_back)


@kit_habit("busy")
def forks_and_lets_the_child_go_on(kit: Kit) -> None:
    """The child lives as long as it likes, with copies of all descriptors."""
    kit.in_child(stay, is_waited_for=False)


@kit_habit("busy")
def forks_a_user_of_pools(kit: Kit) -> None:
    kit.in_child(lambda: use_a_pool_and_leave_it(kit))


@kit_habit("busy")
def forks_and_the_child_exits_at_once(kit: Kit) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@kit_habit("busy")
def forks_and_the_child_shuts_down(kit: Kit) -> None:
    def shut_down() -> None:
        for pool in kit.pools:
            pool.kill_workers()
            pool.shutdown()
        kit.child_looks_back()

    kit.in_child(shut_down)


@kit_habit("busy")
def forks_in_a_thread(kit: Kit) -> None:
    def fork() -> None:
        with contextlib.suppress(SystemExit):
            kit.in_child(kit.child_looks_back)
            return
        os._exit(0)

    thread = threading.Thread(target=fork)
    thread.start()
    kit.at_last.append(thread.join)


@kit_habit("busy")
def forks_under_load(kit: Kit) -> None:
    def submit() -> None:
        for _ in range(40):
            kit.submit("adds", "load")

    thread = threading.Thread(target=submit)
    thread.start()
    for _ in range(6):
        kit.in_child(kit.child_looks_back)
    kit.at_last.append(thread.join)


@kit_habit("busy")
def becomes_a_daemon(kit: Kit) -> None:
    """Double fork: the grandchild goes on in a session of its own."""

    def fork_again() -> None:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            stay()
        kit.own(pid)
        os._exit(0)

    kit.in_child(fork_again)


@kit_habit("early")
def is_a_daemon_already(kit: Kit) -> None:
    """Forks before there is a pool, and a child of it stays."""
    kit.in_child(stay, is_waited_for=False)


def _start(kit: Kit, *, close_fds: bool) -> None:
    child = subprocess.Popen(["sleep", "1000"], close_fds=close_fds, start_new_session=True)
    child.returncode = 0  # it is not waited for, and Popen shall not complain
    kit.own(child.pid)


@kit_habit("started", group="programs")
def starts_a_program_that_stays(kit: Kit) -> None:
    _start(kit, close_fds=True)


@kit_habit("busy", group="programs")
def starts_a_program_with_all_descriptors(kit: Kit) -> None:
    _start(kit, close_fds=False)


@kit_habit("busy", group="programs", says=("sh: 0: getcwd.*",))
def runs_programs(kit: Kit) -> None:
    for _ in range(5):
        subprocess.run(["true"], check=False, close_fds=False)
    os.system("true")


@kit_habit("busy")
def spawns_with_posix(kit: Kit) -> None:
    kit.own(os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}))


def _multiprocessing(point: Point, method: str) -> None:
    context: Any = multiprocessing.get_context(method)

    def use(kit: Kit) -> None:
        if not sys.executable or "__main__" not in sys.modules:
            return  # a habit has taken what multiprocessing needs
        process = context.Process(target=use_a_pool)
        process.start()
        # Not `is_alive`: others may reap it.
        if not multiprocessing.connection.wait([process.sentinel], 60):
            kit.fault("a process of multiprocessing hangs")
            process.kill()
        process.join(0)
        if process.exitcode not in (0, None, 255):  # None, 255: somebody else has reaped it
            kit.fault(f"a process of multiprocessing exited with {process.exitcode}")

    use.__name__ = f"uses_multiprocessing_{method}_when_{point}"
    habit(
        point,
        says=("Exception ignored in: <Finalize.*", "AssertionError: can only join.*"),
        group="" if method == "fork" else "temporary",
    )(use)


for _method in ("fork", "spawn", "forkserver"):
    _multiprocessing("busy", _method)
_multiprocessing("late", "fork")


@kit_habit("late")
def uses_another_pool(kit: Kit) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        if pool.map(abs, range(-5, 0)) != [5, 4, 3, 2, 1]:
            kit.fault("multiprocessing's pool is wrong")


@kit_habit("busy", group="programs")
def starts_a_user_of_pools(kit: Kit) -> None:
    code = "from compilepool import CompilePool as P; print(P(1).submit(abs, -1).result())"
    said = subprocess.run(
        [sys.executable, "-c", code], check=False, stdout=-1, stderr=-3, close_fds=False
    ).stdout
    if said != b"1\n":
        kit.fault(f"another program said {said!r}")
