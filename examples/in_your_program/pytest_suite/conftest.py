"""One pool for a test session; under pytest-xdist, one for each of its workers."""

import os
from collections.abc import Iterator

import pytest

from compilepool import CompilePool


@pytest.fixture(scope="session")
def pool() -> Iterator[CompilePool]:
    """A pool with this process's share of the CPUs."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    pool = CompilePool(max(1, CompilePool().max_workers // share), timeout=60)
    yield pool
    pool.kill_workers()  # also ends what a test that has failed left running
