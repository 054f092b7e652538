"""Supervisors that die while they start, start while others end, and die again and again."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, is_alive, wait_until
from tests.sharing import Failed, nothing_is_left, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")

MEETING = "import compilepool.client.connection.meeting as m, signal, os\n"
WHERE = "pool.submit(jobs.where).result()[1]"


def test_a_program_that_dies_when_it_has_the_lock_leaves_it_to_the_next() -> None:
    with programs(2) as (first, second):
        first.run(MEETING + "m.spawn = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(Failed, match="Ended"):
            first.run(WHERE)
        assert second.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert second.end() == ""


def test_a_program_that_dies_before_it_joins_leaves_no_supervisor(runtime: Path) -> None:
    with programs(1) as (program,):
        program.run(MEETING + "m._join = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(Failed, match="Ended"):
            program.run(WHERE)
        assert nothing_is_left(runtime)


def test_who_waits_when_the_starter_dies_starts_another_supervisor() -> None:
    with programs(4) as (starter, *others):
        starter.run(MEETING + "m._wait_for = lambda _: os.kill(os.getpid(), signal.SIGKILL)")
        starter.start(WHERE)
        for other in others:
            other.start(WHERE)
        assert len({other.answer() for other in others}) == 1


@pytest.mark.parametrize("when", ["before it forks", "when it has forked", "when it has begun"])
def test_a_supervisor_that_dies_while_it_starts_is_started_again(when: str) -> None:
    """The program kills it, once, at the moment in question."""
    kills = {
        "before it forks": "m.spawn = lambda *args: kill(spawn(*args))",
        "when it has forked": "m._wait_for = lambda pid: wait(pid) or kill_all()",
        "when it has begun": "m._introduce = lambda *args: introduce(*args) or kill_all()",
    }
    with programs(2) as (killer, other):
        killer.run(MEETING + "from tests.proc import pids_with_environment")
        killer.run(
            """
spawn, wait, introduce = m.spawn, m._wait_for, m._introduce
def restore():
    m.spawn, m._wait_for, m._introduce = spawn, wait, introduce
def kill(pid):
    restore()
    os.kill(pid, signal.SIGKILL)
    return pid
def kill_all():
    restore()
    mark = "COMPILEPOOL_TEST=" + os.environ["COMPILEPOOL_TEST"]
    for pid in pids_with_environment(mark):
        with open(f"/proc/{pid}/cmdline") as file:
            words = file.read()
        if "start_shared" in words or "compilepool supervisor" in words:
            os.kill(pid, signal.SIGKILL)
"""
        )
        killer.run(kills[when])
        parent = killer.run(WHERE)
        assert other.run(WHERE) == parent
        assert killer.end() == other.end() == ""


def test_a_supervisor_that_never_gets_anywhere_makes_a_pool_private() -> None:
    with programs(1) as (program,):
        program.run(
            MEETING + "m.process_command = lambda flags, _: ['/bin/false']\nm.PATIENCE_S = 5.0"
        )
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert "supervisors were started 3 times, and ended" in program.end()


def test_a_deleted_socket_makes_newcomers_private_and_disturbs_nobody(runtime: Path) -> None:
    with programs(2) as (first, second):
        parent = first.run(WHERE)
        (file,) = runtime.glob("compilepool/*.sock")
        file.unlink()
        assert second.run(WHERE) != parent
        assert f"somebody has deleted the socket {file} of a supervisor" in second.end()
        assert first.run(WHERE) == parent


def test_supervisors_are_killed_again_and_again(tmp_path: Path) -> None:
    """Each job is sent twice at most, so each ends, and the pool goes on."""
    with programs(3) as ranks:
        for round in range(4):
            logs = [tmp_path / f"log{round}-{number}" for number in range(3)]
            for number, rank in enumerate(ranks):
                rank.run(
                    f"futures[{number}] ="
                    f" pool.submit(jobs.append_and_wait, {str(logs[number])!r}, '/nowhere')"
                )
            for _ in range(2):
                assert wait_until(lambda logs=logs: any(log.exists() for log in logs))  # type: ignore[misc]
                for supervisor in supervisors():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(supervisor, signal.SIGKILL)
                    assert wait_until(lambda pid=supervisor: not is_alive(pid))  # type: ignore[misc]
                for log in logs:
                    log.unlink(missing_ok=True)
            for number, rank in enumerate(ranks):
                # If it was killed before a program's jobs came, theirs may have a life left.
                rank.run(f"futures[{number}].cancel()")
                error = rank.run(
                    f"futures[{number}].cancelled() or"
                    f" type(futures[{number}].exception({PATIENCE_S})).__name__"
                )
                assert error in (True, "SupervisorDied")
        for rank in ranks:
            assert rank.run("pool.submit(jobs.sleep, 0).result()") == 0


@pytest.mark.parametrize("linger", [0.0, 0.01])
def test_no_program_misses_a_supervisor_that_is_about_to_end(linger: float) -> None:
    """Two programs come and go all the time, so many come just when the supervisor ends."""
    options = f"max_workers=1, shared=True, linger={linger}"
    with programs(2, options) as ranks:
        for number, rank in enumerate(ranks):
            rank.start(
                f"""
for round in range(12):
    with CompilePool({options}) as own:
        assert [own.submit(abs, -i).result({PATIENCE_S}) for i in range(2)] == [0, 1]
    time.sleep({linger} * (1 + round % 3 / 100) + {number} * 0.001)
"""
            )
        for rank in ranks:
            assert rank.answer() is None
            assert rank.end() == ""
