"""The environment variables of jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S


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


def temporary_folder() -> str:
    return tempfile.gettempdir()


def test_tempfile_looks_where_the_job_says(pool: CompilePool, tmp_path: Path) -> None:
    usual = pool.submit(temporary_folder).result(PATIENCE_S)
    assert usual != str(tmp_path)
    job = pool.options(env={"TMPDIR": str(tmp_path)})
    for folder in (str(tmp_path), usual):
        runner = pool if folder == usual else job
        assert runner.submit(temporary_folder).result(PATIENCE_S) == folder


def choose_folder(folder: str) -> None:
    tempfile.tempdir = folder


def test_but_not_if_the_initializer_has_chosen_a_folder(tmp_path: Path) -> None:
    chosen = str(tmp_path / "chosen")
    with CompilePool(1, initializer=choose_folder, initargs=(chosen,)) as pool:
        job = pool.options(env={"TMPDIR": str(tmp_path)})
        for each in (pool, job, pool):
            assert each.submit(temporary_folder).result(PATIENCE_S) == chosen


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


def test_workers_have_that_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with CompilePool(100) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE_S) == "1"
        changed = pool.options(env={"OMP_NUM_THREADS": "3"})
        assert changed.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE_S) == "3"
    assert "OMP_NUM_THREADS" not in os.environ
