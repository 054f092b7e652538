"""Jobs: what goes to a worker, and what comes back."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from compilepool import (
    CompileFuture,
    CompilePool,
    RemoteTraceback,
    SerializationError,
    WorkerCrashed,
)
from tests.proc import PATIENCE_S


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


class NeedsTwoArguments(Exception):
    """Pickles, but does not unpickle: a common mistake with exceptions."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


class Unloadable:
    """Pickles, and does not unpickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise LookupError("not here")


def raise_error(error: BaseException) -> None:
    raise error


def raise_made_here(kind: type[BaseException], *args: str) -> None:
    raise kind(*args)


def test_any_callable_is_a_job(pool: CompilePool) -> None:
    base = 40

    def closure(x: int) -> int:
        return base + x

    calls: list[CompileFuture[Any]] = [
        pool.submit(abs, -42),
        pool.submit(lambda: 42),
        pool.submit(closure, 2),
        pool.submit(functools.partial(pow, 2), 5),
        pool.submit("a,b".split, ","),
    ]
    results: list[object] = [call.result(PATIENCE_S) for call in calls]
    assert results == [42, 42, 42, 32, ["a", "b"]]


def test_keywords_named_like_parameters_reach_the_job(pool: CompilePool) -> None:
    def job(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert pool.submit(job, self=1, fn=2).result(PATIENCE_S) == {"self": 1, "fn": 2}


def test_map_keeps_the_order(pool: CompilePool) -> None:
    assert list(pool.map(pow, range(20), [2] * 20)) == [i**2 for i in range(20)]


def test_submit_returns_a_compile_future(pool: CompilePool) -> None:
    assert isinstance(pool.submit(abs, 1), CompileFuture)


def test_an_exception_arrives_as_itself_with_the_remote_traceback(pool: CompilePool) -> None:
    def compile_it() -> float:
        return 1 / 0

    error = pool.submit(compile_it).exception(PATIENCE_S)
    assert type(error) is ZeroDivisionError
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in compile_it" in str(error.__cause__)
    assert "run_job" not in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_base_exception_is_its_jobs_failure_only(
    pool: CompilePool, kind: type[BaseException]
) -> None:
    worker = pool.submit(os.getpid).result(PATIENCE_S)
    assert type(pool.submit(raise_made_here, kind).exception(PATIENCE_S)) is kind
    assert pool.submit(os.getpid).result(PATIENCE_S) == worker


def test_os_exit_is_its_jobs_failure_only(pool: CompilePool) -> None:
    error = pool.options(name="quitter").submit(os._exit, 3).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert (error.job, error.exitcode, error.signal) == ("quitter", 3, None)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (threading.Lock, "_thread.lock"),
        (lambda: raise_made_here(UnpicklableError), "tests.processes.test_jobs.UnpicklableError"),
        (
            lambda: raise_made_here(NeedsTwoArguments, "a", "b"),
            "tests.processes.test_jobs.NeedsTwoArguments",
        ),
        (Unloadable, "LookupError: not here"),
    ],
)
def test_what_cannot_be_pickled_fails_its_job_by_name_of_type(
    pool: CompilePool, job: functools.partial[object], words: str
) -> None:
    worker = pool.submit(os.getpid).result(PATIENCE_S)
    error = pool.options(name="odd").submit(job).exception(PATIENCE_S)
    assert isinstance(error, SerializationError)
    assert words in str(error)
    assert "'odd'" in str(error)
    assert "\n" not in str(error).split("Its traceback")[0].strip()
    assert pool.submit(os.getpid).result(PATIENCE_S) == worker


def test_the_traceback_of_an_exception_that_cannot_be_pickled_is_kept(pool: CompilePool) -> None:
    error = pool.submit(raise_made_here, UnpicklableError).exception(PATIENCE_S)
    assert error is not None
    assert "in raise_made_here" in str(error.__cause__)


def test_a_call_that_cannot_be_pickled_is_refused_at_once(pool: CompilePool) -> None:
    with pytest.raises(SerializationError, match="job 'abs' could not be pickled: TypeError"):
        pool.submit(abs, threading.Lock())  # type: ignore[arg-type] # that is the point
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_call_that_cannot_be_unpickled_fails_its_job(pool: CompilePool) -> None:
    error = pool.submit(print, Unloadable()).exception(PATIENCE_S)
    assert isinstance(error, SerializationError)
    assert isinstance(error, pickle.PicklingError)  # which users of other pools catch
    assert "'print' could not be unpickled in the worker: LookupError: not here" in str(error)


def test_workers_have_the_clients_path_directory_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("answer = 42")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPILEPOOL_EXAMPLE", "yes")

    def look() -> tuple[object, ...]:
        answer = importlib.import_module("only_here").answer
        return answer, os.getcwd(), os.environ["COMPILEPOOL_EXAMPLE"], sys.path

    for method in ("fork", "spawn"):
        with CompilePool(1, start_method=method) as pool:
            seen = pool.submit(look).result(PATIENCE_S)
        assert seen[:3] == (42, str(tmp_path), "yes")
        assert seen[3] == sys.path


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import dataclasses, sys
from compilepool import CompilePool

print("top level")

@dataclasses.dataclass
class Kernel:
    name: str

class Refused(Exception):
    pass

def compile_it(name):
    if name == "bad":
        raise Refused(name)
    return Kernel(name)

with CompilePool(2, start_method=sys.argv[1]) as pool:
    assert pool.submit(compile_it, "softmax").result(20) == Kernel("softmax")
    assert isinstance(pool.submit(compile_it, "softmax").result(20), Kernel)
    assert type(pool.submit(compile_it, "bad").exception(20)) is Refused
"""
    )
    for method in ("fork", "spawn"):
        command = [sys.executable, str(script), method]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, "top level\n", "")


class Reversing:
    """A serializer of the user's, that nothing else understands."""

    def dumps(self, obj: object, /) -> bytes:
        import pickle

        return pickle.dumps(obj)[::-1]

    def loads(self, data: bytes, /) -> object:
        import pickle

        return pickle.loads(data[::-1])


def test_a_serializer_of_the_users_carries_calls_and_results() -> None:
    with CompilePool(1, serializer=Reversing()) as pool:
        assert pool.submit(pow, 2, 5).result(PATIENCE_S) == 32
        error = pool.submit(raise_error, ValueError("bad")).exception(PATIENCE_S)
        assert repr(error) == "ValueError('bad')"
        with pytest.raises(SerializationError, match="could not be pickled"):
            pool.submit(lambda: 1)


def test_an_initializer_runs_in_each_worker_before_its_jobs() -> None:
    def initialize(value: str) -> None:
        os.environ["COMPILEPOOL_EXAMPLE"] = value

    with CompilePool(2, initializer=initialize, initargs=("ready",)) as pool:
        futures = [pool.submit(os.getenv, "COMPILEPOOL_EXAMPLE") for _ in range(8)]
        assert {future.result(PATIENCE_S) for future in futures} == {"ready"}


def test_jobs_run_at_the_same_time(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with CompilePool(2) as pool:
        # Each end of a fifo waits for the other to be opened.
        reader = pool.submit(fifo.read_text)
        writer = pool.submit(fifo.write_text, "met")
        assert reader.result(PATIENCE_S) == "met"
        assert writer.result(PATIENCE_S) == 3


def test_a_short_job_does_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    """Short jobs are sent ahead; when the one before turns out long, they are taken back."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with CompilePool(2) as pool:
        for future in [pool.submit(abs, i) for i in range(100)]:
            future.result(PATIENCE_S)
        long = pool.submit(fifo.read_text)
        short = [pool.submit(abs, -i) for i in range(100)]
        assert [future.result(PATIENCE_S) for future in short] == list(range(100))
        assert not long.done()
        assert long.running()
        fifo.write_text("go")
        assert long.result(PATIENCE_S) == "go"


def test_a_worker_that_a_job_forked_and_that_returns_is_no_second_worker(
    pool: CompilePool,
) -> None:
    assert pool.submit(os.fork).result(PATIENCE_S) > 0
    assert [pool.submit(abs, -i).result(PATIENCE_S) for i in range(10)] == list(range(10))


def test_warm_up_starts_all_workers(pool: CompilePool) -> None:
    from tests.proc import pool_processes, wait_until

    pool.warm_up()
    assert wait_until(lambda: len(pool_processes("worker")) == 2)
