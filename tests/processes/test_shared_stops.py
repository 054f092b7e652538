"""Programs and supervisors that are stopped (SIGSTOP), and go on, or never do."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, is_alive, wait_until
from tests.processes.guests import view
from tests.sharing import Program, nothing_is_left, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")

NOTHING = "pool.submit(jobs.sleep, 0).result()"
HURRY = "import compilepool.client.connection.meeting as m; m.PATIENCE_S = 0.3"


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_program_that_stops_before_it_says_a_word_holds_nobody_up() -> None:
    """It has connected. The supervisor ends with the last client, whatever the other wanted."""
    with programs(2) as (silent, other):
        silent.run(
            "import compilepool.client.connection.meeting as m\n"
            "introduce = m._introduce\n"
            "def stop(*args):\n"
            "    m._introduce = introduce\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "    introduce(*args)\n"
            "m._introduce = stop\n"
        )
        assert other.run(NOTHING) == 0
        silent.start(NOTHING)
        assert wait_until(lambda: state(silent.pid) == "T")
        assert other.run(NOTHING) == 0
        (supervisor,) = supervisors()
        assert other.end() == ""
        assert wait_until(lambda: not is_alive(supervisor))
        os.kill(silent.pid, signal.SIGCONT)
        assert silent.answer() == 0
        assert silent.end() == ""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_program_that_stops_between_join_and_answer_holds_nobody_up() -> None:
    with programs(2) as (silent, other):
        silent.run(
            "import compilepool.client.connection.meeting as m\n"
            "answer = m._answer\n"
            "def stop(*args):\n"
            "    m._answer = answer\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "    return answer(*args)\n"
            "m._answer = stop\n"
        )
        assert other.run(NOTHING) == 0
        silent.start(NOTHING)
        assert wait_until(lambda: len(view().clients) == 2)
        assert other.run(NOTHING) == 0
        assert other.end() == ""
        os.kill(silent.pid, signal.SIGCONT)
        assert silent.answer() == 0
        assert silent.end() == ""


def test_a_starter_that_stops_with_the_lock_makes_others_private() -> None:
    with programs(2) as (starter, other):
        starter.run(
            "import compilepool.client.connection.meeting as m\n"
            "spawn = m.spawn\n"
            "def stop(*args):\n"
            "    m.spawn = spawn\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "    return spawn(*args)\n"
            "m.spawn = stop\n"
        )
        starter.start(NOTHING)
        assert wait_until(lambda: state(starter.pid) == "T")
        other.run(HURRY)
        assert other.run(NOTHING) == 0
        assert other.end().count("the pool is not shared") == 1
        os.kill(starter.pid, signal.SIGCONT)
        assert starter.answer() == 0
        assert starter.end() == ""


def test_results_that_a_stopped_program_does_not_read_hold_nobody_up() -> None:
    with programs(2) as (lazy, other):
        lazy.run(NOTHING)
        other.run(NOTHING)
        lazy.run("futures.update(enumerate(pool.submit(jobs.large, 60000) for _ in range(150)))")
        with stopped(lazy.pid):
            for _ in range(3):
                assert other.run("len(pool.submit(jobs.large, 300000).result())") == 300000
            # They take turns, so all of the stopped program's jobs end in time.
            assert wait_until(lambda: all(each.jobs == 0 for each in view().clients))
            assert other.end() == ""
        assert lazy.run("{len(future.result()) for future in futures.values()} == {60000}")
        assert lazy.end() == ""


def test_a_program_that_is_killed_while_it_is_stopped_with_results_waiting(runtime: Path) -> None:
    with programs(1) as (lazy,):
        lazy.run(NOTHING)
        lazy.run("futures.update(enumerate(pool.submit(jobs.large, 60000) for _ in range(50)))")
        with stopped(lazy.pid):
            lazy.kill()
        assert nothing_is_left(runtime)


def test_a_stopped_supervisor_makes_newcomers_private_and_goes_on_with_its_programs() -> None:
    with programs(2) as (old, new):
        old.run(NOTHING)
        (supervisor,) = supervisors()
        with stopped(supervisor):
            old.run("futures[0] = pool.submit(jobs.sleep, 0)")
            new.run(HURRY)
            assert new.run(NOTHING) == 0
            assert new.end().count("the pool is not shared") == 1
        assert old.run("futures[0].result()") == 0
        assert wait_until(lambda: len(view().clients) == 1)
        assert supervisors() == [supervisor]
        assert old.end() == ""


def test_a_program_ends_though_its_supervisor_is_stopped(runtime: Path) -> None:
    with programs(2) as ranks:
        for rank in ranks:
            rank.run(NOTHING)
        (supervisor,) = supervisors()
        with stopped(supervisor):
            ranks[0].run("pool.submit(jobs.sleep, 1000)")
            ranks[0].end()
            assert ranks[1].run("pool.kill_workers()") is None
            ranks[1].end()
        assert nothing_is_left(runtime)


def test_a_stopped_supervisor_that_is_killed_is_replaced() -> None:
    with programs(2) as ranks:
        for rank in ranks:
            rank.run(NOTHING)
        (supervisor,) = supervisors()
        with stopped(supervisor):
            for rank in ranks:
                rank.run("futures[0] = pool.submit(jobs.where)")
            os.kill(supervisor, signal.SIGKILL)
            assert len({rank.run("futures[0].result()[1]") for rank in ranks}) == 1


def test_the_interpreter_exits_while_another_thread_meets(runtime: Path) -> None:
    """The thread waits for a supervisor that is stopped, with the pool's lock."""
    with programs(2) as (old, new):
        old.run(NOTHING)
        (supervisor,) = supervisors()
        with stopped(supervisor):
            new.run("threading.Thread(target=pool.submit, args=(abs, -1), daemon=True).start()")
            assert wait_until(lambda: waits_to_connect(new))
            assert new.process.stdin is not None
            new.process.stdin.close()
            new.process.wait(PATIENCE_S)
        assert old.end() == ""
    assert nothing_is_left(runtime)


def waits_to_connect(program: Program) -> bool:
    with contextlib.suppress(OSError):  # it opens and closes files meanwhile
        fds = Path(f"/proc/{program.pid}/fd")
        return any(os.readlink(fd).startswith("socket:") for fd in fds.iterdir())
    return False


def test_a_signal_handler_submits_while_its_program_meets() -> None:
    """Its job goes with the one whose meeting it interrupts."""
    with programs(2) as (old, new):
        old.run(NOTHING)
        (supervisor,) = supervisors()
        new.run(
            "signal.signal(signal.SIGUSR1,"
            " lambda *_: futures.update({0: pool.submit(jobs.sleep, 0)}))"
        )
        with stopped(supervisor):
            new.start("pool.submit(jobs.sleep, 0.001).result()")
            assert wait_until(lambda: waits_to_connect(new))
            os.kill(new.pid, signal.SIGUSR1)
            select.select([], [], [], 0.05)  # whether it comes before or after makes no difference
        assert new.answer() == 0.001
        assert new.run(f"futures[0].result({PATIENCE_S})") == 0
        assert new.end() == ""


def test_a_signal_handler_that_raises_while_its_program_meets_leaves_the_pool_of_use() -> None:
    with programs(2) as (old, new):
        old.run(NOTHING)
        (supervisor,) = supervisors()
        with stopped(supervisor):
            new.start(
                "try:\n    pool.submit(jobs.sleep, 0).result()\n"
                "except KeyboardInterrupt:\n    futures[0] = 'interrupted'\n"
            )
            assert wait_until(lambda: waits_to_connect(new))
            os.kill(new.pid, signal.SIGINT)
            assert new.answer() is None
        assert new.run("futures[0]") == "interrupted"
        assert new.run("pool.submit(jobs.where).result()[1]") == old.run(
            "pool.submit(jobs.where).result()[1]"
        )
        assert wait_until(lambda: len(view().clients) == 2)
        assert new.end() == ""
