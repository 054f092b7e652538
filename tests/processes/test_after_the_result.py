"""What a job leaves is torn down after its result was sent: by then it can harm nobody."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool
from compilepool.client.crashes.crash_folder import REPORT, default_root
from compilepool.client.crashes.kept_crash import KeptCrash
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at

STARTS = pytest.mark.parametrize("start_method", ["fork", "spawn"])


class Bomb:
    """Does something when it is torn down in another process than the one that has made it."""

    def __init__(self, action: Callable[..., object], *arguments: Any) -> None:
        self._owner = os.getpid()
        self._action = action
        self._arguments = arguments

    def __del__(self) -> None:
        if os.getpid() != self._owner:
            self._action(*self._arguments)


def segfault() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]


def leave() -> None:
    os._exit(3)


def leave_in_order() -> None:
    sys.exit(4)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ValueError("in a destructor")


def take(_: object) -> str:
    return "result"


class Plain:
    """Arrives as a word, and crashes the worker that has made it."""

    def __init__(self) -> None:
        self.bomb = make_bomb()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("result",)


def make_bomb() -> Bomb:
    bomb = Bomb(segfault)
    bomb._owner = 0
    return bomb


def give() -> Plain:
    return Plain()


def raise_with(_: object) -> None:
    raise KeyError("result")


def pid() -> int:
    return os.getpid()


@contextlib.contextmanager
def pool_of_one(**options: Any) -> Iterator[CompilePool]:
    with CompilePool(1, **options) as pool:
        yield pool


def reports() -> list[dict[str, Any]]:
    return [json.loads((path / REPORT).read_text()) for path in sorted(default_root().glob("2*"))]


@STARTS
@pytest.mark.parametrize("action", [segfault, leave, kill])
def test_a_result_is_there_although_the_arguments_end_their_worker(
    action: Callable[[], object], start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="compilepool")
    with pool_of_one(start_method=start_method) as pool:
        bomb = pool.options(name="bomb").submit(take, Bomb(action))
        after = [pool.options(name=f"next {each}").submit(abs, -each) for each in range(20)]
        assert bomb.result(PATIENCE_S) == "result"
        assert [future.result(PATIENCE_S) for future in after] == list(range(20))
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("job 'bomb' has ended, but while its arguments and its result were torn")
    if action is kill:
        assert reports() == []
        return
    (report,) = reports()
    assert (report["job"], report["cause"], report["last_job"]) == ("bomb", "teardown", "bomb")
    (folder,) = default_root().glob("2*")
    assert line.endswith(f"; its report is in {folder}")
    with KeptCrash.open(folder) as kept, pytest.raises(ValueError, match="had ended before"):
        kept.call()


@pytest.mark.parametrize("action", [leave_in_order, fail])
def test_a_destructor_that_raises_ends_no_worker(action: Callable[[], object]) -> None:
    with pool_of_one() as pool:
        before = pool.submit(pid).result(PATIENCE_S)
        assert pool.submit(take, Bomb(action)).result(PATIENCE_S) == "result"
        assert pool.submit(pid).result(PATIENCE_S) == before


@STARTS
@pytest.mark.parametrize("job", [give, raise_with])
def test_nor_does_it_matter_what_is_torn_down(
    job: Callable[..., Any], start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="compilepool")
    arguments = () if job is give else (Bomb(segfault),)
    with pool_of_one(start_method=start_method) as pool:
        future = pool.options(name="bomb").submit(job, *arguments)
        if job is raise_with:
            assert str(future.exception(PATIENCE_S)) == "'result'"
        else:
            assert future.result(PATIENCE_S) == "result"
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
    assert "job 'bomb' has ended, but" in caplog.text


def test_the_keys_of_the_next_jobs_are_not_poisoned() -> None:
    with pool_of_one(keep_crashes=False) as pool:
        for _ in range(4):
            bomb = pool.submit(take, Bomb(leave))
            assert pool.options(key="innocent").submit(abs, -1).result(PATIENCE_S) == 1
            assert bomb.result(PATIENCE_S) == "result"


def test_while_a_worker_tears_down_for_long_another_one_runs_what_it_was_sent(gate: Gate) -> None:
    with CompilePool(2) as pool:
        pool.warm_up()
        pool.wait_ready(PATIENCE_S)
        bombs = [pool.submit(take, Bomb(wait_at, gate.path)) for _ in range(3)]
        # With three, both workers tear down, and one of their successors.
        assert [bomb.result(PATIENCE_S) for bomb in bombs] == ["result"] * 3
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        gate.open()


def test_a_worker_that_tears_down_for_ever_delays_nobody_for_ever(gate: Gate) -> None:
    with pool_of_one() as pool:
        before = pool.submit(pid).result(PATIENCE_S)
        assert pool.submit(take, Bomb(wait_at, gate.path)).result(PATIENCE_S) == "result"
        assert pool.submit(pid).result(PATIENCE_S) != before


def test_no_limit_holds_for_what_comes_after_the_result(gate: Gate, tmp_path: Path) -> None:
    with pool_of_one() as pool:
        assert pool.submit(take, None).result(PATIENCE_S) == "result"  # imports this module
        hasty = pool.options(timeout=0.9)  # less than until the worker is replaced
        bomb = Bomb(tear_down_slowly, gate.path, tmp_path / "done")
        assert hasty.submit(take, bomb).result(PATIENCE_S) == "result"
        assert hasty.submit(abs, -1).result(PATIENCE_S) == 1
        gate.open()
        assert wait_until((tmp_path / "done").exists)


def tear_down_slowly(gate: Path, done: Path) -> None:
    wait_at(gate)
    done.touch()


def test_what_a_destructor_prints_is_in_no_other_log() -> None:
    with pool_of_one() as pool:
        assert pool.submit(take, Bomb(print, "of the first")).result(PATIENCE_S) == "result"
        future = pool.submit(print, "of the second")
        future.result(PATIENCE_S)
        assert future.record.log == "of the second\n"


def test_a_child_that_a_destructor_forks_runs_no_jobs(tmp_path: Path) -> None:
    with pool_of_one() as pool:
        assert pool.submit(take, Bomb(os.fork)).result(PATIENCE_S) == "result"
        for _ in range(20):
            pool.submit(note_pid, tmp_path / "pids").result(PATIENCE_S)
    assert len(set((tmp_path / "pids").read_text().split())) == 1
    assert len((tmp_path / "pids").read_text().split()) == 20


def note_pid(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
