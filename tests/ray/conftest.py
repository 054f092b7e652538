"""One cluster of three nodes for all tests; each leaves nothing of a pool on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compilepool.integrations.ray import RayCompilePool
from tests.proc import wait_until
from tests.ray.clusters import Nodes, nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`ray.cluster_utils` does not close the log files of its nodes."""
    mark = pytest.mark.filterwarnings("ignore:unclosed file .*/logs/:ResourceWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(mark)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster of three nodes, to which this process is connected."""
    with nodes(3, tmp_path_factory.mktemp("crashes")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def leaves_nothing_behind(cluster: Nodes) -> Iterator[None]:
    """In place of what `tests/conftest.py` has: Ray's own processes and descriptors stay."""
    pools = cluster.actors()  # of a module's pool
    yield
    assert wait_until(lambda: not cluster.left(pools)), cluster.left(pools)


@pytest.fixture
def pool(cluster: Nodes) -> Iterator[RayCompilePool]:
    """A pool over all nodes."""
    with RayCompilePool() as pool:
        yield pool
