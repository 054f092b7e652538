"""What dies, and what that costs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
from pathlib import Path

import pytest

from compilepool import CompilePool, CompilePoolError, SupervisorDied, WorkerCrashed
from tests.proc import PATIENCE_S, is_alive, pool_process, pool_processes, wait_until


def crash() -> None:
    ctypes.string_at(0)


def work(seconds: float) -> float:
    """A job of some length that needs no CPU."""
    signal.sigtimedwait([signal.SIGUSR2], seconds)
    return seconds


def test_a_segfault_fails_its_job_alone_and_names_it(pool: CompilePool) -> None:
    futures = [pool.options(name=f"good {i}").submit(work, 0.2) for i in range(8)]
    bad = pool.options(name="softmax_sm90").submit(crash)
    futures += [pool.options(name=f"good {i}").submit(work, 0.2) for i in range(8, 16)]
    assert [future.result(PATIENCE_S) for future in futures] == [0.2] * 16
    error = bad.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert (error.job, error.signal, error.exitcode) == ("softmax_sm90", signal.SIGSEGV, None)
    first_line = str(error).splitlines()[0]
    assert "softmax_sm90" in first_line
    assert "SIGSEGV" in first_line
    assert "in crash" in error.python_traceback
    assert error.python_traceback.startswith("Fatal Python error: Segmentation fault")
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


@pytest.mark.parametrize(
    ("job", "number"),
    [
        (crash, signal.SIGSEGV),
        (os.abort, signal.SIGABRT),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 2), signal.SIGRTMIN + 2),
    ],
)
def test_the_signal_is_told(pool: CompilePool, job: object, number: int) -> None:
    error = pool.submit(job).exception(PATIENCE_S)  # type: ignore[arg-type] # a callable
    assert isinstance(error, WorkerCrashed)
    assert error.signal == number


def test_worker_crashed_pickles() -> None:
    error = WorkerCrashed("gone", job="x", signal=11, python_traceback="Fatal")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.job, copy.signal, copy.python_traceback) == ("gone", "x", 11, "Fatal")


def test_a_job_sent_ahead_to_a_worker_that_dies_runs_elsewhere() -> None:
    with CompilePool(1) as pool:
        for i in range(50):
            pool.submit(abs, i)
        futures = []
        for i in range(20):
            futures.append((pool.submit(os._exit, 1), pool.submit(abs, -i)))
        for i, (bad, good) in enumerate(futures):
            assert isinstance(bad.exception(PATIENCE_S), WorkerCrashed)
            assert good.result(PATIENCE_S) == i


def test_a_killed_idle_worker_costs_nothing(pool: CompilePool) -> None:
    for _ in range(3):
        worker = pool.submit(os.getpid).result(PATIENCE_S)
        os.kill(worker, signal.SIGKILL)
        # Submitted at once: it may be sent to the dead one, and must be taken back from it.
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def count_run(log: Path, gate: Path) -> int:
    """Note the run, and wait for the gate on the first one."""
    with log.open("a") as file:
        file.write("run\n")
    runs = len(log.read_text().splitlines())
    if runs == 1:
        gate.read_text()
    return runs


@pytest.mark.parametrize("kind", ["fork server", "supervisor"])
def test_a_job_that_loses_its_pools_process_runs_again(
    pool: CompilePool, tmp_path: Path, kind: str
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    os.mkfifo(gate)
    future = pool.submit(count_run, log, gate)
    assert wait_until(lambda: log.exists() and log.read_text() != "")
    victim = pool_process(kind)
    os.kill(victim, signal.SIGKILL)
    assert future.result(PATIENCE_S) == 2
    assert not is_alive(victim)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def kill_above(levels: int) -> None:
    """Kill the fork server (1) or the supervisor (2) of this worker."""
    victim = os.getppid()
    if levels == 2:
        victim = int(Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(victim, signal.SIGKILL)
    signal.pause()


def test_a_job_that_kills_supervisors_fails_the_second_time(pool: CompilePool) -> None:
    error = pool.options(name="killer").submit(kill_above, 2).exception(PATIENCE_S)
    assert isinstance(error, SupervisorDied)
    assert "'killer'" in str(error)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_job_that_kills_fork_servers_fails_the_second_time(pool: CompilePool) -> None:
    error = pool.options(name="killer").submit(kill_above, 1).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert "second time" in str(error)
    assert "'killer'" in str(error)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_killed_supervisor_of_an_idle_pool_costs_nothing(pool: CompilePool) -> None:
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
    supervisor = pool_process("supervisor")
    os.kill(supervisor, signal.SIGKILL)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
    assert pool_process("supervisor") != supervisor


def test_workers_that_die_while_starting_fail_the_jobs_after_five(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def die() -> None:
        with log.open("a") as file:
            file.write("start\n")
        os._exit(9)

    with CompilePool(1, initializer=die) as pool:
        error = pool.options(name="softmax").submit(abs, 1).exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert "'softmax'" in str(error)
        assert "five times in a row one could not be started" in str(error)
        assert error.exitcode == 9
        assert log.read_text().count("start") == 5


def test_an_initializer_that_raises_fails_the_jobs_with_that() -> None:
    def fail() -> None:
        raise FileNotFoundError("no ptxas")

    with CompilePool(2, initializer=fail) as pool:
        for _ in range(2):
            error = pool.submit(abs, 1).exception(PATIENCE_S)
            assert isinstance(error, FileNotFoundError)
            assert "in fail" in str(error.__cause__)
        assert wait_until(lambda: not pool_processes("worker"))


def test_what_a_crashed_job_left_running_is_gone_when_its_error_arrives(
    pool: CompilePool, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"

    def leave_and_crash() -> None:
        import subprocess

        children = [
            subprocess.Popen(["sleep", "1000"], start_new_session=detach).pid
            for detach in (False, True)
        ]
        pids.write_text(" ".join(map(str, children)))
        crash()

    assert isinstance(pool.submit(leave_and_crash).exception(PATIENCE_S), WorkerCrashed)
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


def test_a_supervisor_that_cannot_run_fails_the_jobs_rather_than_being_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with CompilePool(1) as pool:
        error = pool.submit(abs, -1).exception(PATIENCE_S)
        assert isinstance(error, SupervisorDied)
        assert "exited with code 1" in str(error)
        monkeypatch.setattr("sys.executable", "/no/such/python")
        with pytest.raises(CompilePoolError, match=r"could not be started: .*No such file"):
            pool.submit(abs, -1)
        monkeypatch.undo()
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def take_next_job_and_die() -> None:
    """Read the job behind this one from the worker's socket, as a worker does, and exit (7)."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                poll = select.poll()
                poll.register(int(name), select.POLLIN)
                if poll.poll(100):
                    os.read(int(name), 1 << 17)
                    os._exit(7)


def test_a_job_that_a_dying_worker_has_read_and_not_started_runs_elsewhere() -> None:
    with CompilePool(1) as pool:
        for _ in range(200):
            for i in range(20):
                pool.submit(abs, i)  # short jobs, so that the next ones are sent ahead
            thief, victim = pool.submit(take_next_job_and_die), pool.submit(abs, -42)
            error = thief.exception(PATIENCE_S)
            assert victim.result(PATIENCE_S) == 42
            if error is not None:
                assert isinstance(error, WorkerCrashed)
                assert error.exitcode == 7
                return
    raise AssertionError("no job was ever sent ahead")
