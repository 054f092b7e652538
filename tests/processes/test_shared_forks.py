"""Programs that share a pool and fork, close descriptors, or have threads that go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, is_alive, wait_until
from tests.processes.guests import view
from tests.sharing import nothing_is_left, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")

NOTHING = "pool.submit(jobs.sleep, 0).result()"

FORKS = {
    "by os.fork": "os.fork()",
    "behind Python's back": "__import__('ctypes').CDLL(None).fork()",
}


@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_that_lives_on_does_not_keep_the_pool(how: str, runtime: Path) -> None:
    """It may have copies of the socket. The supervisor watches the pidfd of the program."""
    with programs(1) as (program,):
        program.run(NOTHING)
        (supervisor,) = supervisors()
        child = program.run(
            f"child = {FORKS[how]}\n"
            "if not child:\n"
            "    os.closerange(0, 3)\n"
            "    signal.pause()\n"
            "    os._exit(0)\n"
        )
        child = program.run("child")
        try:
            program.kill()
            assert wait_until(lambda: not is_alive(supervisor))
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)
        assert nothing_is_left(runtime)


@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_that_exits_leaves_the_pool_to_its_parent(how: str) -> None:
    with programs(2) as (program, other):
        program.run(NOTHING)
        other.run(NOTHING)
        program.run(f"child = {FORKS[how]}\nif not child: os._exit(0)")
        program.run("os.waitpid(child, 0)")
        assert program.run(NOTHING) == 0
        assert len(view().clients) == 2


def test_a_forked_child_has_a_pool_of_its_own_on_the_same_supervisor() -> None:
    with programs(1) as (program,):
        parent = program.run("pool.submit(jobs.where).result()[1]")
        program.run(
            "read, write = os.pipe()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    own = CompilePool(max_workers=2, shared=True)\n"
            "    os.write(write, str(own.submit(jobs.where).result()[1]).encode())\n"
            "    own.shutdown()\n"
            "    os._exit(0)\n"
        )
        assert program.run("os.read(read, 100).decode()") == str(parent)
        assert program.run("os.waitpid(child, 0)[1]") == 0
        assert program.run("pool.submit(jobs.where).result()[1]") == parent
        assert wait_until(lambda: len(view().clients) == 1)


def test_a_program_forks_while_it_meets() -> None:
    """Its child must keep neither lock nor socket, else no supervisor follows a dead one."""
    with programs(2) as (program, other):
        program.run(
            "import compilepool.client.connection.meeting as m\n"
            "spawn = m.spawn\n"
            "def fork_and_spawn(*args):\n"
            "    m.spawn = spawn\n"
            "    futures[0] = os.fork()\n"
            "    if not futures[0]:\n"
            "        os.closerange(0, 3)\n"
            "        signal.pause()\n"
            "        os._exit(0)\n"
            "    return spawn(*args)\n"
            "m.spawn = fork_and_spawn\n"
        )
        program.run(NOTHING)
        child = program.run("futures[0]")
        try:
            (supervisor,) = supervisors()
            os.kill(supervisor, signal.SIGKILL)
            assert wait_until(lambda: not is_alive(supervisor))
            parent = other.run("pool.submit(jobs.where).result()[1]")
            assert wait_until(lambda: program.run("pool.submit(jobs.where).result()[1]") == parent)
            assert len(supervisors()) == 1
            assert program.end() == other.end() == ""
        finally:
            os.kill(child, signal.SIGKILL)


CHILDREN = """
import multiprocessing, os, sys
from compilepool import CompilePool
from tests import shared_jobs as jobs

def child(queue, have_all):
    with CompilePool(2, shared=True) as own:
        queue.put(own.submit(jobs.where).result(20)[1])
        have_all.wait(20)

if __name__ == "__main__":
    with CompilePool(2, shared=True) as pool:
        parents = {pool.submit(jobs.where).result(20)[1]}
        context = multiprocessing.get_context(sys.argv[1])
        queue, have_all = context.Queue(), context.Barrier(3)
        children = [context.Process(target=child, args=(queue, have_all)) for _ in range(3)]
        for each in children:
            each.start()
        found = [queue.get(timeout=20) for _ in children]
        for each in children:
            each.join(20)
            assert each.exitcode == 0, each.exitcode
        print(len(parents | set(found)), len(set(found)))
        assert pool.submit(abs, -1).result(20) == 1
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_share_with_each_other(method: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CHILDREN)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "program.py"), method],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == "1"


def test_a_program_that_closes_all_descriptors_meets_again() -> None:
    with programs(2) as (program, other):
        parent = program.run("pool.submit(jobs.where).result()[1]")
        other.run(NOTHING)
        (supervisor,) = supervisors()
        program.run("futures[0] = pool.submit(jobs.sleep, 0.05)")
        program.run("os.closerange(3, 100)")
        program.run("own = [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]")
        ended = f"type(futures[0].exception({PATIENCE_S})).__name__"
        assert program.run(ended) in ("NoneType", "SupervisorDied")
        assert program.run("pool.submit(jobs.where).result()[1]") == parent
        assert program.run("all(os.readlink(f'/proc/self/fd/{fd}') == '/dev/null' for fd in own)")
        assert supervisors() == [supervisor]
        assert other.run(NOTHING) == 0
        assert wait_until(lambda: len(view().clients) == 2)


GOES_ON = """
import threading
from compilepool import CompilePool
from tests import shared_jobs as jobs
def work():
    threading.main_thread().join()
    print([pool.submit(abs, -n).result(20) for n in range(3)], flush=True)
if __name__ == "__main__":
    pool = CompilePool(2, shared=True)
    pool.submit(abs, -1).result(20)
    threading.Thread(target=work).start()
"""

FINALIZER = """
import gc, sys
from compilepool import CompilePool
class Submits:
    def __init__(self):
        self.me = self
    def __del__(self):
        found.append(pool.submit(abs, -7))
found = []
if __name__ == "__main__":
    pool = CompilePool(2, shared=True)
    import compilepool.client.connection.meeting as m
    spawn = m.spawn
    def collect_and_spawn(*args):
        Submits()
        gc.collect()
        return spawn(*args)
    m.spawn = collect_and_spawn
    print(pool.submit(abs, -1).result(20), found[0].result(20))
"""

EXITS = """
import os, threading
from compilepool import CompilePool
import compilepool.client.connection.meeting as m
if __name__ == "__main__":
    pool = CompilePool(2, shared=True)
    is_meeting = threading.Event()
    introduce = m._introduce
    def tell(*args):
        is_meeting.set()
        introduce(*args)
    m._introduce = tell
    threading.Thread(target=pool.submit, args=(abs, -1), daemon=True).start()
    is_meeting.wait(20)
    print("ends")
"""

SCRIPTS = {
    "threads that go on after main": (GOES_ON, "[0, 1, 2]"),
    "a finalizer that submits during the meeting": (FINALIZER, "1 7"),
    "exit during the meeting": (EXITS, "ends"),
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_program_with(what: str, runtime: Path, tmp_path: Path) -> None:
    script, answer = SCRIPTS[what]
    (tmp_path / "program.py").write_text(script)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", answer)
    assert nothing_is_left(runtime)
