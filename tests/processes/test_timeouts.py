"""Jobs that run longer than they may: each ends alone, with all that it has started."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, JobTimeout, report_phase
from tests.proc import (
    PATIENCE_S,
    all_dead,
    command_line,
    descendants,
    is_alive,
    pool_process,
    pool_processes,
    wait_until,
)
from tests.zoo import Where, call

TIMEOUT_S = 0.5
ALL_SIGNALS = signal.valid_signals()


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    # Preloaded: to import this module may take a job longer than it has.
    with CompilePool(2, timeout=PATIENCE_S, preload=[__name__]) as pool:
        yield pool


def timed_out(future: CompileFuture[Any]) -> JobTimeout:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, JobTimeout), error
    return error


def spin_in_python() -> None:
    report_phase("scheduling")
    print("half done")
    while True:
        pass


def block_all_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ALL_SIGNALS)
    while True:
        pass


def start_what_does_not_listen(pids: Path) -> None:
    """A shell that ignores SIGTERM, and below it one in a session of its own that does so, too."""
    script = (
        f"trap '' TERM; setsid sh -c \"trap '' TERM; echo \\$\\$ >> {pids}; sleep 1000; true\" &"
        f" echo $$ >> {pids}; sleep 1000; sleep 1000"
    )
    subprocess.run(["sh", "-c", script], check=False)


def test_a_python_loop_ends_with_the_stack_phase_and_output_in_its_error(pool: CompilePool) -> None:
    future = pool.options(name="softmax", timeout=TIMEOUT_S).submit(spin_in_python)
    error = timed_out(future)
    assert isinstance(error, TimeoutError)
    assert (error.job, error.limit, error.phase) == ("softmax", TIMEOUT_S, "scheduling")
    assert "in spin_in_python" in error.python_traceback
    assert error.log == future.record.log == "half done\n"
    first, *rest = str(error).splitlines()
    assert first.startswith("job 'softmax' ran longer than its timeout of 0.5 s, and was ended")
    assert "in spin_in_python (test_timeouts.py:" in str(error)
    assert any(line.startswith("  phase    scheduling, for 0.") for line in rest)
    assert any(line.startswith("  output   half done") for line in rest)


@pytest.mark.parametrize("where", [Where.MAIN_THREAD, Where.MAIN_THREAD_WITH_GIL], ids=str)
def test_c_code_that_spins_ends_with_its_function_in_the_error(
    pool: CompilePool, zoo: str, where: Where
) -> None:
    error = timed_out(pool.options(timeout=TIMEOUT_S).submit(call, zoo, "spin", where))
    assert "#0 spin (libzoo.so" in error.native_traceback
    assert "in spin (libzoo.so+0x" in str(error)
    assert " in call\n" in error.python_traceback


def test_a_job_that_blocks_all_signals_ends_with_its_native_stack(pool: CompilePool) -> None:
    error = timed_out(pool.options(timeout=TIMEOUT_S).submit(block_all_signals))
    assert "PyEval" in error.native_traceback
    assert any("the job has blocked" in reason for reason in error.missing)


def test_nothing_is_left_of_children_that_do_not_listen(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = pool.options(timeout=TIMEOUT_S).submit(start_what_does_not_listen, path)
    error = timed_out(future)
    pids = [int(pid) for pid in path.read_text().split()]
    assert len(pids) == 2
    assert all_dead(pids)
    assert {child.pid for child in error.children} >= set(pids)
    assert "children sh -c trap" in str(error)


def start_what_cleans_up(left: Path, is_there: Path) -> None:
    script = (
        f"trap 'rm {left}; exit' TERM; touch {left} {is_there}; while true; do sleep 0.01; done"
    )
    subprocess.run(["sh", "-c", script], check=True)


def test_children_get_to_remove_their_temporary_files(pool: CompilePool, tmp_path: Path) -> None:
    left, is_there = tmp_path / "left", tmp_path / "is_there"
    timed_out(pool.options(timeout=TIMEOUT_S).submit(start_what_cleans_up, left, is_there))
    assert is_there.exists()
    assert not left.exists()


def test_so_do_those_of_a_job_that_is_cancelled(pool: CompilePool, tmp_path: Path) -> None:
    left, is_there = tmp_path / "left", tmp_path / "is_there"
    future = pool.submit(start_what_cleans_up, left, is_there)
    assert wait_until(is_there.exists)
    assert future.cancel()
    assert wait_until(lambda: not left.exists())


def go_on_without_its_child(path: Path) -> None:
    subprocess.run(["sh", "-c", "sleep 1000"], check=False)
    path.touch()


def test_a_job_does_not_see_its_children_die(pool: CompilePool, tmp_path: Path) -> None:
    timed_out(pool.options(timeout=TIMEOUT_S).submit(go_on_without_its_child, tmp_path / "went on"))
    assert not (tmp_path / "went on").exists()


def test_other_jobs_lose_nothing_and_the_place_is_refilled(pool: CompilePool) -> None:
    bad = [pool.options(timeout=TIMEOUT_S).submit(spin_in_python) for _ in range(2)]
    good = [pool.submit(abs, -number) for number in range(16)]
    assert [future.result(PATIENCE_S) for future in good] == list(range(16))
    for future in bad:
        timed_out(future)
    assert len(pool_processes("worker")) <= 2


def test_the_pools_timeout_is_for_all_jobs_and_a_jobs_own_is_before_it() -> None:
    with CompilePool(1, timeout=TIMEOUT_S) as pool:
        assert timed_out(pool.submit(signal.pause)).limit == TIMEOUT_S
        assert timed_out(pool.options(timeout=0.05).submit(signal.pause)).limit == 0.05
        future = pool.options(timeout=None).submit(signal.pause)
        assert wait_until(future.running)
        assert future.cancel()


def wait_for(path: Path) -> str:
    assert wait_until(path.exists)
    return "done"


def test_time_in_the_queue_does_not_count(pool: CompilePool, tmp_path: Path) -> None:
    first = [pool.submit(wait_for, tmp_path / "gate") for _ in range(2)]
    waiting = pool.options(timeout=TIMEOUT_S).submit(abs, -1)
    # Something else has taken longer than its timeout meanwhile.
    with CompilePool(1, timeout=TIMEOUT_S) as other:
        timed_out(other.submit(signal.pause))
    assert not waiting.done()
    (tmp_path / "gate").touch()
    assert waiting.result(PATIENCE_S) == 1
    assert [future.result(PATIENCE_S) for future in first] == ["done", "done"]


def test_an_initializer_takes_nothing_of_a_jobs_time(tmp_path: Path) -> None:
    with CompilePool(
        1, timeout=TIMEOUT_S, initializer=wait_for, initargs=(tmp_path / "gate",)
    ) as pool:
        future = pool.submit(abs, -1)
        with CompilePool(1, timeout=TIMEOUT_S) as other:
            timed_out(other.submit(signal.pause))
        (tmp_path / "gate").touch()
        assert future.result(PATIENCE_S) == 1


def test_a_stopped_worker_is_ended_as_well(pool: CompilePool) -> None:
    future = pool.options(timeout=TIMEOUT_S).submit(os.kill, 0, signal.SIGSTOP)
    assert timed_out(future).limit == TIMEOUT_S


def test_a_job_that_crashes_while_it_is_looked_into_has_one_end(pool: CompilePool) -> None:
    def crash_when_asked() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -SEGV {os.getpid()}"])
        signal.pause()

    future = pool.options(timeout=TIMEOUT_S).submit(crash_when_asked)
    assert future.exception(PATIENCE_S) is not None
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_without_native_tracebacks_a_timeout_says_where_as_well() -> None:
    options: dict[str, Any] = {"native_tracebacks": False, "preload": [__name__]}
    with CompilePool(1, timeout=TIMEOUT_S, **options) as pool:
        assert "in spin_in_python" in timed_out(pool.submit(spin_in_python)).python_traceback


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_supervisor_that_dies_costs_no_timeout(start_method: Any) -> None:
    with CompilePool(1, start_method=start_method, timeout=TIMEOUT_S) as pool:
        future = pool.submit(signal.pause)
        assert wait_until(future.running)
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        timed_out(future)


def test_a_timeout_of_years_is_as_good_as_none() -> None:
    with CompilePool(1, timeout=1e9) as pool:
        future = pool.submit(subprocess.run, ["sleep", "1000"])
        assert wait_until(future.running)
        supervisor = pool_process("supervisor")
        assert pool.dump(future).state == "running"
        assert is_alive(supervisor)
        assert future.cancel()


def test_the_error_can_be_pickled(pool: CompilePool) -> None:
    error = timed_out(pool.options(timeout=0.01).submit(subprocess.run, ["sleep", "1000"]))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.__dict__) == (JobTimeout, str(error), error.__dict__)


def fork_and_let_go() -> int:
    """A daemon: its parent is gone, it leads a session, and ignores what it can."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            os.write(writer, str(os.getpid()).encode())
            while True:
                signal.sigwait([signal.SIGUSR1])
        os._exit(0)
    return int(os.read(reader, 20))


def test_a_daemon_of_a_job_goes_with_it(pool: CompilePool, tmp_path: Path) -> None:
    def hang() -> None:
        (tmp_path / "pid").write_text(str(fork_and_let_go()))
        signal.pause()

    timed_out(pool.options(timeout=TIMEOUT_S).submit(hang))
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_job_that_starts_processes_without_end_is_ended() -> None:
    script = "while true; do sleep 100 & done"
    with CompilePool(1) as pool:
        future = pool.options(timeout=0.1).submit(subprocess.run, ["sh", "-c", script])
        timed_out(future)
        supervisor = pool_process("supervisor")
        assert not [pid for pid in descendants(supervisor) if "sleep" in command_line(pid)]


def test_limits_of_one_pool_do_not_reach_another(pool: CompilePool) -> None:
    """Only what the pool has started is signalled."""
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        timed_out(pool.options(timeout=0.05).submit(signal.pause))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_job_cancelled_at_its_timeout_ends_once(pool: CompilePool) -> None:
    for _ in range(20):
        future = pool.options(timeout=0.01).submit(signal.pause)
        wait_until(future.running)
        if future.cancel():
            assert future.cancelled()
        else:
            timed_out(future)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
