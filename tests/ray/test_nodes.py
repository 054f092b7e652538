"""Which nodes are used, what they must have, and whose connection to Ray it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

import compilepool
import ray
from compilepool import NoNode, PoolClosed
from compilepool.integrations.ray import RayCompilePool
from tests.proc import wait_until
from tests.ray import ray_jobs as jobs
from tests.ray.clusters import Nodes

LONG_S = 120


def test_only_the_named_nodes_are_used(cluster: Nodes) -> None:
    id = next(iter(cluster.cluster.worker_nodes)).node_id
    with RayCompilePool(nodes=[id]) as pool:
        futures = [pool.submit(jobs.pid_of_worker, 0.05) for _ in range(12)]
        assert all(future.result(LONG_S) for future in futures)
        assert {future.record.node.rpartition("/")[2] for future in futures} == {id[:8]}
        assert pool.max_workers == 2


def test_a_node_with_another_compilepool_is_left_out_and_the_difference_named(
    cluster: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a copy of the package in which one line differs."""
    package = Path(compilepool.__file__).parent
    copy = tmp_path / "src" / "compilepool"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "text.py").open("a") as file:
        file.write("\nEDITED = True\n")
    node = cluster.add(env_vars={"PYTHONPATH": str(copy.parent)})
    try:
        with RayCompilePool() as pool:
            futures = [pool.submit(jobs.pid_of_worker, 0.1) for _ in range(30)]
            assert all(future.result(LONG_S) for future in futures)
            names = {future.record.node.rpartition("/")[2] for future in futures}
            assert node.node_id[:8] not in names
            assert wait_until(lambda: "is not used" in caplog.text)
        assert f"{node.node_id[:8]} is not used: its compilepool is " in caplog.text
        with RayCompilePool(nodes=[node.node_id]) as pool:
            with pytest.raises(NoNode):
                pool.wait_ready(LONG_S)
            error = pool.submit(abs, 1).exception(LONG_S)
        assert isinstance(error, NoNode)
        [(name, reason)] = error.reasons.items()
        assert name.endswith(node.node_id[:8])
        assert reason in str(error)
        assert "(files " in reason
    finally:
        cluster.remove(node)


def test_a_runtime_environment_reaches_the_jobs(cluster: Nodes) -> None:
    env = {"env_vars": {"OF_RUNTIME_ENV": "yes"}}
    with RayCompilePool(ray_remote_args={"runtime_env": env}) as pool:
        assert pool.submit(os.getenv, "OF_RUNTIME_ENV").result(LONG_S) == "yes"


def test_two_programs_share_the_pools_of_the_nodes(cluster: Nodes, tmp_path: Path) -> None:
    """Their pools are alike, and so have one supervisor a machine, and one run of a flight.

    These three nodes are one machine.
    """
    file, gate = tmp_path / "runs", tmp_path / "gate"
    pools = [RayCompilePool(shared=True) for _ in range(2)]
    try:
        assert all(pool.submit(abs, -1).result(LONG_S) == 1 for pool in pools)
        assert wait_until(lambda: all(pool.stats().nodes[2:] for pool in pools))
        assert len(cluster.actors()) == 6
        assert len(cluster.processes("supervisor")) == 1
        futures = [
            pool.options(flight_key="kernel").submit(run_once, str(file), str(gate))
            for pool in pools
        ]
        assert wait_until(lambda: all(future.running() for future in futures))
        gate.touch()
        assert [future.result(LONG_S) for future in futures] == [str(gate)] * 2
        assert file.read_text() == "run\n"
        assert sorted(future.record.shared for future in futures) == ["", "joined"]
    finally:
        for pool in pools:
            pool.shutdown()


def run_once(file: str, gate: str) -> str:
    jobs.note(file, "run")
    return jobs.wait_for(gate)


def test_a_connection_that_was_there_stays(cluster: Nodes) -> None:
    with RayCompilePool(address=cluster.address) as pool:
        assert pool.submit(abs, -1).result(LONG_S) == 1
    assert ray.is_initialized()
    with pytest.raises(PoolClosed):
        pool.submit(abs, 1)


def run(code: str, **env: str) -> str:
    """Run a program, and return what it writes."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    return done.stdout or done.stderr


def test_a_connection_of_the_pool_ends_with_it(cluster: Nodes) -> None:
    code = f"""if True:
        import ray
        from compilepool.integrations.ray import RayCompilePool
        with RayCompilePool(address={cluster.address!r}) as pool:
            print(pool.submit(abs, -1).result(60))
            print(ray.is_initialized())
        print(ray.is_initialized())
    """
    assert run(code).split() == ["1", "True", "False"]


NO_RAY = """if True:
    import importlib.metadata, sys
    from compilepool.integrations.ray import RayCompilePool
    try:
        RayCompilePool()
    except ImportError as error:
        print(error)
"""


def test_where_ray_is_not_installed_one_line_says_so(tmp_path: Path) -> None:
    """The program sees no package beside those of compilepool."""
    (tmp_path / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)
    root = Path(compilepool.__file__).parent.parent
    code = f"import sys; sys.path[:0] = {[str(root), str(tmp_path)]!r}\n{NO_RAY}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "RayCompilePool needs Ray, which is not installed: pip install -U 'compilepool[ray]'\n"
    ), done.stderr


def test_where_ray_is_too_old_one_line_says_so(tmp_path: Path) -> None:
    """Its metadata are read, and it is not imported."""
    old = tmp_path / "ray-2.3.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.3.1\n")
    text = run(NO_RAY, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert text.startswith("RayCompilePool needs Ray 2.")
    assert "not 2.3.1: pip install -U 'compilepool[ray]'\n" in text
    assert text.count("\n") == 1
