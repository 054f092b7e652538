"""What tests of real processes need: pools, gates for their jobs, and ways to crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compilepool import CompilePool
from tests.programs.fifos import Fifo
from tests.programs.gates import Gate
from tests.sharing import nothing_is_left
from tests.zoo import build
from tools.executor_tests.marks import mark


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is listed of CPython's tests must fail."""
    mark([item for item in items if item.path.name == "test_cpython_executor.py"], "cpython")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a library of ways to crash and to hang."""
    return str(build(tmp_path_factory.mktemp("zoo")))


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    """A pool of two workers."""
    with CompilePool(2) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A closed gate, which opens with the end of the test."""
    with Gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A FIFO that nobody has opened yet."""
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory below which programs meet. In the end, nothing of theirs is left."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    assert nothing_is_left(folder)
