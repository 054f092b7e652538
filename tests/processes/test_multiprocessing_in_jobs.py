"""`multiprocessing` in jobs: managers of the program, who a worker is, and processes of its own."""

from __future__ import annotations

import logging
import multiprocessing
import operator
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, Literal

import pytest

from compilepool import CompilePool, SerializationError, WorkerCrashed
from tests.proc import PATIENCE_S, descendants

START_METHODS: tuple[Literal["fork"], Literal["spawn"]] = ("fork", "spawn")
PRELOADS: tuple[list[str], ...] = ([], ["multiprocessing.util"])


@pytest.fixture(scope="module", autouse=True)
def _tracker_runs() -> Iterator[None]:
    """The process that `multiprocessing` starts with the first lock, and leaves."""
    resource_tracker.ensure_running()
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def manager() -> Iterator[SyncManager]:
    with multiprocessing.get_context("spawn").Manager() as manager:
        yield manager


def put(queue: Any, value: int) -> int:
    queue.put(value)
    return value


def add_one(lock: Any, namespace: Any) -> None:
    with lock:
        namespace.count += 1


def keep_proxy(queue: Any) -> None:
    queue.put("initialized")
    sys.kept = queue  # type: ignore[attr-defined]


def put_in_kept(value: str) -> None:
    sys.kept.put(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("preload", PRELOADS)
def test_what_a_manager_has_can_be_used(
    manager: SyncManager, start_method: Literal["fork", "spawn"], preload: list[str]
) -> None:
    queue, lock, namespace = manager.Queue(), manager.Lock(), manager.Namespace()
    namespace.count = 0
    with CompilePool(
        2, start_method=start_method, preload=preload, initializer=keep_proxy, initargs=(queue,)
    ) as pool:
        assert pool.submit(put, queue, 1).result(PATIENCE_S) == 1
        list(pool.map(add_one, [lock] * 20, [namespace] * 20))
        pool.submit(put_in_kept, "kept").result(PATIENCE_S)
    assert namespace.count == 20
    got = {queue.get(timeout=PATIENCE_S) for _ in range(3)}
    assert got >= {"initialized", 1}


LATE = """
from compilepool import CompilePool
import sys

def put(queue, value):
    queue.put(value)

with CompilePool(1, start_method={start_method!r}) as pool:
    future = pool.submit(abs, -1)
    assert "multiprocessing" not in sys.modules
    assert future.result() == 1
    import multiprocessing
    with multiprocessing.get_context("fork").Manager() as manager:
        queue = manager.Queue()
        pool.submit(put, queue, 1).result()
        assert queue.get() == 1
    multiprocessing.current_process().authkey = b"another one"
    with multiprocessing.get_context("fork").Manager() as manager:
        queue = manager.Queue()
        pool.submit(put, queue, 2).result()
        assert queue.get() == 2
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_key_that_comes_after_the_pool_has_started_comes_with_the_next_job(
    start_method: str,
) -> None:
    program = LATE.format(start_method=start_method)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)


def exit_hard(_proxy: object) -> None:
    print("exits", flush=True)
    os._exit(3)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_key_is_in_no_file_and_not_in_proc(
    manager: SyncManager,
    start_method: Literal["fork", "spawn"],
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = bytes(multiprocessing.current_process().authkey)
    spellings = (key, key.hex().encode(), repr(key)[2:-1].encode())
    logs = tmp_path / "logs"
    queue = manager.Queue()
    with CompilePool(
        1, start_method=start_method, log_dir=logs, initializer=keep_proxy, initargs=(queue,)
    ) as pool:
        pool.submit(put, queue, 1).result(PATIENCE_S)
        processes = descendants(os.getpid())
        assert processes
        for pid in processes:
            for name in ("cmdline", "environ"):
                try:
                    data = Path(f"/proc/{pid}/{name}").read_bytes()
                except OSError:  # it has ended meanwhile
                    continue
                assert not any(spelling in data for spelling in spellings), name
        error = pool.submit(exit_hard, queue).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert not any(spelling in caplog.text.encode() for spelling in spellings)
    for folder in (Path(error.folder), logs):
        for file in folder.iterdir():
            data = file.read_bytes()
            assert not any(spelling in data for spelling in spellings), file


def describe_process() -> dict[str, Any]:
    import multiprocessing

    own, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return {
        "name": own.name,
        "pid": own.pid == os.getpid(),
        "daemon": own.daemon,
        "is_alive": own.is_alive() and parent.is_alive(),
        "parent": parent.pid,
        "parent_name": parent.name,
        "number": own._identity[0],  # programs read it
        "start_method": multiprocessing.get_start_method(allow_none=True),
        "children": len(multiprocessing.active_children()),
    }


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("preload", PRELOADS)
def test_a_worker_is_told_from_other_processes(
    start_method: Literal["fork", "spawn"], preload: list[str]
) -> None:
    with CompilePool(1, start_method=start_method, preload=preload) as pool:
        told = pool.submit(describe_process).result(PATIENCE_S)
        assert told == {
            "name": "CompilePoolWorker-1",
            "pid": True,
            "daemon": False,
            "is_alive": True,
            "parent": os.getpid(),
            "parent_name": multiprocessing.current_process().name,
            "number": 1,
            "start_method": multiprocessing.get_start_method(allow_none=True),
            "children": 0,
        }
        error = pool.submit(exit_hard, None).exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert pool.submit(describe_process).result(PATIENCE_S)["name"] == "CompilePoolWorker-2"


def test_workers_do_not_import_it_themselves() -> None:
    with CompilePool(1) as pool:
        is_loaded = pool.submit(eval, "'multiprocessing' in __import__('sys').modules")
        assert is_loaded.result(PATIENCE_S) is False


def in_process(context: Any) -> int:
    queue = context.SimpleQueue()
    process = context.Process(target=queue.put, args=(3,))
    process.start()
    got: int = queue.get()
    process.join()
    assert process.exitcode == 0
    queue.close()
    return got


def in_pool(context: Any) -> int:
    with context.Pool(1) as pool:
        result = int(pool.apply(operator.add, (1, 2)))
        pool.close()
        pool.join()
    return result


def in_executor(context: Any) -> int:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return int(pool.submit(operator.add, 1, 2).result(PATIENCE_S))


def in_manager(context: Any) -> int:
    with context.Manager() as manager:
        found = manager.dict({"key": 3})
        return int(found["key"])


def run_inside(method: str, run: Callable[[Any], int]) -> int:
    return run(multiprocessing.get_context(method))


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_job_starts_processes_of_its_own(
    start_method: Literal["fork", "spawn"], method: str
) -> None:
    with CompilePool(1, start_method=start_method) as pool:
        for run in (in_process, in_pool, in_executor, in_manager):
            assert pool.submit(run_inside, method, run).result(PATIENCE_S) == 3


SCRIPT = """
import multiprocessing, os, sys
from compilepool import CompilePool

print("runs")

class Box:
    def __init__(self, value):
        self.value = value

def refill(box):
    return Box(box.value + 1)

def job(method):
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        box = pool.apply(refill, (Box(1),))
        pool.close()
        pool.join()
    assert type(box) is Box
    return box.value

with CompilePool(1, start_method=sys.argv[1]) as pool:
    for method in ("fork", "spawn", "forkserver"):
        assert pool.submit(job, method).result() == 2
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_they_get_functions_of_the_script_which_does_not_run_again(
    start_method: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    ended = subprocess.run(
        [sys.executable, script, start_method],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "runs\n", "")


def keep_lock(*shared: Any) -> None:
    sys.shared = shared  # type: ignore[attr-defined]


def count_in_file(path: Path) -> int:
    lock, _ = sys.shared  # type: ignore[attr-defined]
    with lock:
        count = int(path.read_text()) + 1
        path.write_text(str(count))
    return count


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_share_locks_with_a_name(
    start_method: Literal["fork", "spawn"], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "count"
    path.write_text("0")
    shared = (context.RLock(), context.Event())
    with CompilePool(2, start_method=start_method, initializer=keep_lock, initargs=shared) as pool:
        counts = list(pool.map(count_in_file, [path] * 30))
    assert sorted(counts) == list(range(1, 31))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: multiprocessing.get_context("fork").Lock(), "created in a fork context"),
        (multiprocessing.get_context("spawn").Queue, "workers inherit no pipes"),
        (multiprocessing.get_context("fork").SimpleQueue, "workers inherit no pipes"),
        (lambda: multiprocessing.get_context("spawn").Value("i"), "mmap"),
    ],
)
def test_what_only_children_inherit_is_refused_with_advice(
    make: Callable[[], Any], reason: str
) -> None:
    shared = make()
    try:
        with pytest.raises(SerializationError, match=rf"{reason}.*multiprocessing\.Manager\(\)"):
            CompilePool(1, initializer=keep_lock, initargs=(shared,))
        with CompilePool(1) as pool, pytest.raises(SerializationError, match=r"\.Manager\(\)"):
            pool.submit(print, shared)
    finally:
        if hasattr(shared, "close"):
            shared.close()


def test_a_key_is_not_pickled_beside_a_lock(manager: SyncManager) -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    with pytest.raises(SerializationError, match="beside a lock would bring its key"):
        CompilePool(1, initializer=keep_lock, initargs=(lock, manager.Queue()))


CONNECTIONS = """
import multiprocessing, sys
from compilepool import CompilePool, SerializationError

def echo(connection):
    connection.send(connection.recv() + 1)
    return connection

own, other = multiprocessing.Pipe()
with CompilePool(1, start_method=sys.argv[1]) as pool:
    own.send(1)
    returned = pool.submit(echo, other).result()
    assert own.recv() == 2
    returned.send(3)
    assert own.recv() == 3
try:
    CompilePool(1, initializer=print, initargs=(own,))
except SerializationError as error:
    assert "only the first worker would get the connection" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_connection_goes_to_a_job_and_back(start_method: str) -> None:
    # A program of its own: `multiprocessing` removes its socket only when that exits.
    command = [sys.executable, "-c", CONNECTIONS, start_method]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
