"""Programs that do to their process what libraries do not expect."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import compilepool
from compilepool import (
    CompileFuture,
    CompilePool,
    CompilePoolError,
    SerializationError,
    WorkerCrashed,
)
from compilepool.errors import RemoteTraceback
from tests.proc import PATIENCE_S, is_alive, wait_until


def run(code: str, *redirections: str) -> subprocess.CompletedProcess[str]:
    """Run a program, by a shell that may redirect its output."""
    return subprocess.run(
        # -P: Python 3.13 cannot import from a deleted directory, which '' on its path would be.
        ["sh", "-c", f'exec "$0" -P -c "$1" {" ".join(redirections)}', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 3,
    )


SETUPS = {
    "a default timeout for sockets": "import socket; socket.setdefaulttimeout(0.01)",
    "an argument that is a path": "import pathlib; sys.argv = [pathlib.Path('x')]",
    "no arguments": "sys.argv = None",
    "a path entry of bytes": "sys.path.append(b'/nowhere')",
    "SIGCHLD ignored": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "a deleted working directory": "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "warnings as errors": "import warnings; warnings.simplefilter('error')",
}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS.keys())
def test_a_pool_works_in_a_program_with(setup: str) -> None:
    result = run(
        f"""
import os, select, sys, tempfile
{setup}
from compilepool import CompilePool
with CompilePool(2) as pool:
    slow = pool.submit(select.select, [], [], [], 0.1)
    assert pool.submit(abs, -1).result({PATIENCE_S}) == 1
    assert slow.result({PATIENCE_S}) == ([], [], [])
    for worker in range(3):
        pool.submit(os._exit, 1).exception({PATIENCE_S})
    print(pool.submit(len, b"x" * 100_000).result({PATIENCE_S}))
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "100000\n"


def test_a_pool_works_where_output_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(
        f"""
import os
from compilepool import CompilePool
with CompilePool(1) as pool:
    wrote = pool.submit(os.write, 1, b"nobody reads this")
    open({str(log)!r}, "w").write(repr(wrote.exception({PATIENCE_S})))
""",
        ">&-",
        "2>&-",
    )
    assert log.read_text() == "None"


def test_a_program_that_closes_all_descriptors_still_gets_its_results() -> None:
    result = run(
        f"""
import logging, os
logging.disable()
from compilepool import CompilePool
with CompilePool(1) as pool:
    assert pool.submit(abs, -1).result({PATIENCE_S}) == 1
    os.closerange(3, 256)
    print(pool.submit(abs, -2).result({PATIENCE_S}))
"""
    )
    assert (result.returncode, result.stdout) == (0, "2\n")


def test_a_large_result_without_a_descriptor_to_receive_it_fails_its_job_only() -> None:
    result = run(
        f"""
import os, resource
from compilepool import CompilePool, CompilePoolError
with CompilePool(1) as pool:
    worker = pool.submit(os.getpid).result({PATIENCE_S})
    future = pool.submit(bytes, 100_000)  # it cannot come before the limit is reached ...
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    def use_all():
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
    use_all()
    future.exception({PATIENCE_S})
    use_all()  # if it has come nevertheless, it has given back its descriptor
    error = pool.submit(bytes, 100_000).exception({PATIENCE_S})  # ... this one for sure
    for fd in held:
        os.close(fd)
    assert type(error) is CompilePoolError and "too many open files" in str(error), error
    assert pool.submit(os.getpid).result({PATIENCE_S}) == worker
"""
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_another_version_on_the_path_is_not_the_one_that_workers_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "compilepool"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run(
        f"""
import sys
sys.path.insert(0, {str(Path(compilepool.__file__).parent.parent)!r})
from compilepool import CompilePool
for method in ("fork", "spawn"):
    with CompilePool(1, start_method=method) as pool:
        assert pool.submit(abs, -1).result({PATIENCE_S}) == 1
"""
    )
    assert (result.returncode, result.stderr) == (0, "")


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Not even its cause can be set."""


class EmptyError(Exception):
    """It is false."""

    def __len__(self) -> int:
        return 0


class RudeError(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        return _raise_rudely, ()

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise_rudely() -> None:
    raise RudeError


def fail(kind: Callable[..., BaseException], *args: object) -> None:
    raise kind(*args)


def test_an_exception_that_is_false_is_raised_with_its_traceback(pool: CompilePool) -> None:
    with pytest.raises(EmptyError) as caught:
        pool.submit(fail, EmptyError).result(PATIENCE_S)
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert cause.tb == cause.text  # as in concurrent.futures


def test_an_exception_keeps_no_reference_to_its_future(pool: CompilePool) -> None:
    future = pool.submit(fail, ValueError)
    reference = weakref.ref(future)
    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"^$"):
            future.result(PATIENCE_S)
        del future
        assert wait_until(lambda: reference() is None)  # the reader may have it a little longer
    finally:
        gc.enable()


def test_exceptions_that_forbid_everything_end_their_jobs() -> None:
    with CompilePool(1) as pool:
        error = pool.submit(fail, FrozenError).exception(PATIENCE_S)
        assert isinstance(error, FrozenError)
        assert "in fail" in str(error.__cause__)
        assert isinstance(pool.submit(fail, RudeError).exception(PATIENCE_S), SerializationError)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


class Agreeable:
    """Has every attribute, as mocks do, each as agreeable."""

    def __getattr__(self, name: str) -> Agreeable:
        if name.startswith("__"):
            raise AttributeError(name)
        return Agreeable()

    def __call__(self) -> int:
        return 42


def test_a_callable_with_every_attribute_is_a_job() -> None:
    with CompilePool(1) as pool:
        assert pool.submit(Agreeable()).result(PATIENCE_S) == 42


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_callback_that_raises_stops_nobody(kind: type[BaseException]) -> None:
    called = threading.Event()

    def call_back(_: object) -> None:
        called.set()
        raise kind

    with CompilePool(1) as pool:
        pool.submit(abs, 1).add_done_callback(call_back)
        assert called.wait(PATIENCE_S)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_more_orphans_than_descriptors_are_killed_all() -> None:
    result = run(
        f"""
import os, resource, subprocess, sys
sys.path.append({str(Path(__file__).parents[2])!r})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from compilepool import CompilePool, WorkerCrashed
from tests.proc import descendants
def leave():
    for _ in range(100):
        subprocess.Popen(["sleep", "1000"])
    os._exit(1)
with CompilePool(2) as pool:
    other = pool.submit(__import__("select").select, [], [], [], 1)
    assert isinstance(pool.submit(leave).exception({PATIENCE_S}), WorkerCrashed)
    assert other.result({PATIENCE_S}) == ([], [], [])
    assert len(descendants(os.getpid())) <= 4
"""
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_crash_of_a_jobs_child_is_not_told_of_the_worker() -> None:
    def crash_in_a_child() -> int:
        pid = os.fork()
        if pid == 0:
            os.abort()
        return os.WTERMSIG(os.waitpid(pid, 0)[1])

    with CompilePool(1) as pool:
        assert pool.submit(crash_in_a_child).result(PATIENCE_S) == 6
        error = pool.submit(os._exit, 3).exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert error.python_traceback == ""
        assert "Abort" not in str(error)


def test_a_crash_in_the_initializer_is_not_blamed_on_the_preload() -> None:
    with CompilePool(
        1, preload=["json"], initializer=os._exit, initargs=(3,), start_method="spawn"
    ) as pool:
        error = pool.submit(abs, 1).exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert "json" not in str(error)
        assert "exited with code 3" in str(error)


def test_an_interrupt_within_options_ends_the_jobs_at_once() -> None:
    pool = CompilePool(1)

    def be_interrupted() -> None:
        with pool.options(name="long") as named:
            futures.append(named.submit(signal.pause))
            raise KeyboardInterrupt

    futures: list[CompileFuture[None]] = []
    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert isinstance(futures[0].exception(PATIENCE_S), CompilePoolError)


def kill_supervisor() -> None:
    """A job that kills its supervisor, the parent of its parent."""
    parent = Path(f"/proc/{os.getppid()}/stat").read_text()
    os.kill(int(parent.rpartition(")")[2].split()[1]), signal.SIGKILL)
    signal.pause()


def test_a_failed_future_is_free_while_the_pool_works_on() -> None:
    with CompilePool(1) as pool:
        lost = pool.submit(kill_supervisor)
        kept = pool.submit(abs, -1)
        assert isinstance(lost.exception(PATIENCE_S), CompilePoolError)
        kept.exception(PATIENCE_S)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        reference = weakref.ref(lost)
        del lost
        gc.collect()
        assert reference() is None


def test_a_frozen_program_is_refused_rather_than_started_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with CompilePool(1) as pool, pytest.raises(CompilePoolError, match="is no Python interpreter"):
        pool.submit(abs, 1)


def test_a_stopped_supervisor_does_not_keep_the_program_from_ending() -> None:
    result = run(
        f"""
import os, signal, sys
sys.path.append({str(Path(__file__).parents[2])!r})
from compilepool import CompilePool
from tests.proc import pool_process
pool = CompilePool(1)
pool.submit(abs, 1).result({PATIENCE_S})
pool.submit(signal.pause)
os.kill(pool_process("supervisor"), signal.SIGSTOP)
"""
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can start what it may not signal afterwards, by util-linux's setpriv",
)
def test_an_orphan_that_may_not_be_signalled_costs_nobody_else_anything() -> None:
    code = f"""
import os, select, subprocess
from compilepool import CompilePool, WorkerCrashed
def leave():
    other_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    child = subprocess.Popen([*other_user, "sh", "-c", "echo ready; exec sleep 1000"], stdout=-1)
    child.stdout.readline()
    os.write(1, f"{{child.pid}}\\n".encode())
    os._exit(1)
with CompilePool(2, capture=False) as pool:
    other = pool.submit(select.select, [], [], [], 0.5)
    assert isinstance(pool.submit(leave).exception({PATIENCE_S}), WorkerCrashed)
    assert other.result({PATIENCE_S}) == ([], [], [])
"""
    # Root, but without the right to signal other users' processes.
    command = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        left = int(program.stdout.readline())
        assert program.wait(PATIENCE_S) == 0
        assert is_alive(left), "it was no such process"
        os.kill(left, signal.SIGKILL)
        assert program.stderr.read().decode().splitlines() == [
            f"compilepool: cannot kill processes [{left}]"
        ]


def test_an_interrupt_does_not_wait_for_a_callback() -> None:
    result = run(
        """
import threading
from compilepool import CompilePool
called = threading.Event()
def call_back(_):
    called.set()
    threading.Event().wait()
try:
    with CompilePool(1) as pool:
        pool.submit(abs, 1).add_done_callback(call_back)
        called.wait()
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted\n", "")


def test_workers_that_cannot_be_had_beside_their_predecessors_cost_no_job() -> None:
    result = run(
        """
import resource, time
from compilepool import CompilePool

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
with CompilePool(12, max_jobs_per_worker=1) as pool:
    futures = [pool.submit(time.sleep, 0.2) for _ in range(24)]
    print([future.result(20) for future in futures] == [None] * 24, pool.stats().restarts)
"""
    )
    assert result.stdout == "True Restarts(supervisor=0, fork_server=0, worker=0)\n"
