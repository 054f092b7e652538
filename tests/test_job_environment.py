"""The environment variables, the CPUs and the niceness of jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool import CompilePool
from compilepool.client.session.setup import environment_of_pool
from compilepool.linux.cpus import usable_cpus
from compilepool.worker.execution import environment
from tests.processes import PATIENCE_S, wait_until


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompilePool]:
    monkeypatch.setenv("OF_THE_PROGRAM", "yes")
    monkeypatch.delenv("OF_THE_JOB", raising=False)
    with CompilePool(1, env={"OF_THE_POOL": "yes", "HOME": None}) as pool:
        yield pool


def variables(*names: str) -> list[str | None]:
    """As this process and a child of it have them."""
    code = f"import os; print([os.environ.get(name) for name in {names!r}])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = [os.environ.get(name) for name in names]
    assert child.stdout.strip() == repr(own)
    return own


def test_a_job_has_its_own_environment_and_none_after_it(pool: CompilePool) -> None:
    names = ("OF_THE_PROGRAM", "OF_THE_POOL", "OF_THE_JOB", "HOME")
    env = {"OF_THE_JOB": "yes", "OF_THE_PROGRAM": None, "HOME": "/nowhere"}
    as_always = ["yes", "yes", None, None]
    assert pool.submit(variables, *names).result(PATIENCE_S) == as_always
    changed = pool.options(env=env).submit(variables, *names)
    assert changed.result(PATIENCE_S) == [None, "yes", "yes", "/nowhere"]
    assert pool.submit(variables, *names).result(PATIENCE_S) == as_always


def fail_with_another_environment() -> None:
    os.environ["OF_THE_JOB"] = "changed"
    del os.environ["OF_THE_PROGRAM"]
    raise ValueError


def test_it_is_restored_after_a_job_that_raises_too(pool: CompilePool) -> None:
    env = {"OF_THE_JOB": "yes", "OF_THE_PROGRAM": "no"}
    future = pool.options(env=env).submit(fail_with_another_environment)
    assert isinstance(future.exception(PATIENCE_S), ValueError)
    names = ("OF_THE_JOB", "OF_THE_PROGRAM")
    assert pool.submit(variables, *names).result(PATIENCE_S) == [None, "yes"]


class Unpickled:
    """Says what the environment was when the call was unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, ("OF_THE_JOB",)


def test_it_holds_while_the_call_is_unpickled(pool: CompilePool) -> None:
    future = pool.options(env={"OF_THE_JOB": "yes"}).submit(str, Unpickled())
    assert future.result(PATIENCE_S) == "yes"


def test_jobs_sent_ahead_have_their_own(pool: CompilePool) -> None:
    futures = [
        pool.options(env={"OF_THE_JOB": str(number)}).submit(os.getenv, "OF_THE_JOB")
        for number in range(100)
    ]
    assert [future.result(PATIENCE_S) for future in futures] == [str(n) for n in range(100)]


def test_what_is_no_unicode_arrives_as_it_is(pool: CompilePool) -> None:
    value = os.fsdecode(b"\xff\xfe=x")
    assert (
        pool.options(env={"OF_THE_JOB": value}).submit(os.getenv, "OF_THE_JOB").result(PATIENCE_S)
        == value
    )


NAMES = st.sampled_from(["COMPILEPOOL_A", "COMPILEPOOL_B", "COMPILEPOOL_C"])
VALUES = st.none() | st.text(st.characters(blacklist_characters="\0", codec="utf-8"))


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_the_environment_is_as_before_whatever_it_was(
    before: dict[str, str | None], changes: dict[str, str | None]
) -> None:
    clean = dict(os.environ)
    with environment(tuple(before.items())):
        expected = dict(os.environ)
        with environment(tuple(changes.items())):
            assert all(os.environ.get(name) == value for name, value in changes.items())
        assert dict(os.environ) == expected
    assert dict(os.environ) == clean


# Threads of libraries


def test_thread_pools_in_workers_have_a_fair_share_unless_the_user_says_how_many() -> None:
    count = "OMP_NUM_THREADS"
    assert environment_of_pool({}, {}, 1)[count] == str(usable_cpus())
    assert environment_of_pool({}, {}, 1000)[count] == "1"
    assert environment_of_pool({count: "7"}, {}, 1000)[count] == "7"
    assert environment_of_pool({count: "7"}, {count: "5"}, 1000)[count] == "5"
    assert count not in environment_of_pool({count: "7"}, {count: None}, 1000)
    assert environment_of_pool({"A": "1"}, {}, 1)["A"] == "1"


def test_workers_have_that_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with CompilePool(100) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE_S) == "1"
        changed = pool.options(env={"OMP_NUM_THREADS": "3"})
        assert changed.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE_S) == "3"
    assert "OMP_NUM_THREADS" not in os.environ


# CPUs and niceness


def placed() -> tuple[int, list[int], list[int]]:
    """This process's niceness and CPUs, and those of a thread."""
    of_thread: list[int] = []
    thread = threading.Thread(target=lambda: of_thread.extend(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    return os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), sorted(of_thread)


def meet(barrier: Path, count: int) -> tuple[int, ...]:
    """The CPUs of this process, when `count` of them have come together."""
    (barrier / str(os.getpid())).touch()
    assert wait_until(lambda: len(list(barrier.iterdir())) == count)
    return tuple(os.sched_getaffinity(0))


START_METHODS: list[Literal["fork", "spawn"]] = ["fork", "spawn"]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_are_as_nice_as_they_shall_be(start_method: Literal["fork", "spawn"]) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with CompilePool(1, nice=3, start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[0] == own + 3
    with CompilePool(1, start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[0] == own


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_keep_to_their_cpus(start_method: Literal["fork", "spawn"]) -> None:
    first = min(os.sched_getaffinity(0))
    with CompilePool(1, cpus=[first], start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[1:] == ([first], [first])
    with CompilePool(1, start_method=start_method) as pool:
        everything = sorted(os.sched_getaffinity(0))
        assert pool.submit(placed).result(PATIENCE_S)[1:] == (everything, everything)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_pinned_workers_have_a_cpu_each(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with CompilePool(2, cpus=cpus, pin_workers=True) as pool:
        for attempt in range(2):
            barrier = tmp_path / str(attempt)
            barrier.mkdir()
            futures = [pool.submit(meet, barrier, 2) for _ in range(2)]
            found = sorted(future.result(PATIENCE_S) for future in futures)
            assert found == [(cpu,) for cpu in cpus]
            pool.submit(os._exit, 1).exception(PATIENCE_S)  # its successor gets its place
