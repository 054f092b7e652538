"""The preload, and what becomes of a pool whose preload is no good."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from compilepool import CompilePool, PreloadFailed, WorkerCrashed
from compilepool.forkserver.fork_safety import reasons_against
from tests.proc import PATIENCE_S, pool_processes, wait_until
from tests.programs.fifos import Fifo

METHODS = pytest.mark.parametrize("start_method", ["fork", "spawn"])
Write = Callable[[str, str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module that pools can import, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


@METHODS
def test_preloaded_modules_are_there_before_the_job(module: Write, start_method: str) -> None:
    name = module("heavy", "import os\npid = os.getpid()")

    def look() -> tuple[int, int]:
        import sys

        return sys.modules["heavy"].pid, os.getpid()

    with CompilePool(1, preload=[name], start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        importer, worker = pool.submit(look).result(PATIENCE_S)
    assert (importer == worker) == (start_method == "spawn")


@METHODS
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import does_not_exist", "No module named 'does_not_exist'"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("import ctypes\nctypes.string_at(0)", "was killed by SIGSEGV"),
        ("import os\nos._exit(5)", "exited with code 5"),
    ],
)
def test_a_preload_that_fails_fails_all_jobs_once(
    module: Write, tmp_path: Path, start_method: str, source: str, words: str
) -> None:
    log = tmp_path / "log"
    name = module("broken", f"open({str(log)!r}, 'a').write('import ')\n{source}")
    with CompilePool(1, preload=["json", name], start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        first = pool.options(name="softmax").submit(abs, -1)
        for future in (first, pool.submit(abs, -1)):
            error = future.exception(PATIENCE_S)
            assert isinstance(error, PreloadFailed)
            assert words in str(error)
            assert error.module == "broken"
            assert "broken" in str(error).splitlines()[0]
        assert "'softmax'" in str(first.exception())
        assert log.read_text().count("import") == 1
        assert wait_until(lambda: not pool_processes("worker"))


def test_the_traceback_of_a_preload_that_crashes_is_told(module: Write) -> None:
    name = module("broken", "import ctypes\ndef sub():\n    ctypes.string_at(0)\nsub()")
    with CompilePool(1, preload=[name]) as pool:
        error = pool.submit(abs, -1).exception(PATIENCE_S)
    assert isinstance(error, PreloadFailed)
    assert "Fatal Python error: Segmentation fault" in error.python_traceback
    assert "in sub" in error.python_traceback


def test_a_fork_server_killed_from_outside_while_it_preloads_is_replaced(
    module: Write, tmp_path: Path
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    os.mkfifo(gate)
    name = module(
        "slow",
        f"open({str(log)!r}, 'a').write('x')\n"
        f"if open({str(log)!r}).read() == 'x': open({str(gate)!r}).read()",
    )
    with CompilePool(1, preload=[name]) as pool:
        future = pool.submit(abs, -1)
        assert wait_until(lambda: log.exists() and log.read_text() != "")
        os.kill(pool_processes("fork server")[0], signal.SIGKILL)
        assert future.result(PATIENCE_S) == 1
    assert log.read_text() == "xx"


def test_a_preload_that_starts_threads_falls_back_to_spawn_with_one_warning(
    module: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = module(
        "threaded",
        "import os, threading\n"
        "pid = os.getpid()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    )

    def look() -> bool:
        import sys

        return bool(sys.modules["threaded"].pid == os.getpid())

    with (
        caplog.at_level(logging.WARNING, "compilepool"),
        CompilePool(2, preload=["json", name]) as pool,
    ):
        futures = [pool.submit(look) for _ in range(6)]
        assert all(future.result(PATIENCE_S) for future in futures)
    (record,) = caplog.records
    assert "runs 1 more thread since it imported 'threaded'" in record.message
    assert "spawn" in record.message


def test_a_fall_back_to_spawn_without_descriptors_fails_jobs_and_not_the_supervisor(
    module: Write, fifo: Fifo, caplog: pytest.LogCaptureFixture
) -> None:
    name = module(
        "threaded_late",
        f"import threading\nopen({str(fifo.path)!r}).read()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    )
    with CompilePool(1, preload=[name]) as pool:
        job = pool.submit(abs, -1)
        fifo.is_reached()
        (supervisor,) = pool_processes("supervisor")
        before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
        fifo.open()
        error = job.exception(PATIENCE_S)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
        assert isinstance(error, WorkerCrashed)
        assert "Too many open files" in str(error)
        os.unlink(fifo.path)
        fifo.path.write_text("")  # each worker preloads by itself now
        assert pool.submit(abs, -2).result(PATIENCE_S) == 2
        assert pool_processes("supervisor") == [supervisor]


def test_a_blas_that_starts_threads_when_it_is_loaded_is_told_not_to(
    module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    name = module("blas", "import os\nthreads = os.environ.get('OPENBLAS_NUM_THREADS')")

    def look() -> tuple[object, object]:
        import sys

        return sys.modules["blas"].threads, os.environ.get("OPENBLAS_NUM_THREADS")

    with CompilePool(1, preload=[name]) as pool:
        assert pool.submit(look).result(PATIENCE_S) == ("1", None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with CompilePool(1, preload=[name]) as pool:
        assert pool.submit(look).result(PATIENCE_S) == ("2", "2")


def test_open_gpu_devices_make_forking_unsafe() -> None:
    assert reasons_against([], ["/dev/null", "/dev/nvidia-caps/x", "socket:[1]"]) == ""
    for device in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dri/renderD128"):
        assert device in reasons_against([], [device])
    both = reasons_against(["", "cuda-EvtHandlr"], ["/dev/nvidia0", "/dev/nvidia0"])
    assert both == "runs 2 more threads (cuda-EvtHandlr) and has opened a GPU (/dev/nvidia0)"


def test_what_a_preload_prints_is_printed_once(
    module: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    name = module("chatty", "print('loading')")
    with CompilePool(2, preload=[name]) as pool:
        list(pool.map(abs, range(8)))
    assert capfd.readouterr().out == "loading\n"


def test_what_a_job_prints_is_there_when_it_has_ended(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        print("compiling")
        raise ValueError

    with CompilePool(1, capture=False) as pool:
        assert isinstance(pool.submit(fail).exception(PATIENCE_S), ValueError)
        assert capfd.readouterr().out == "compiling\n"
