"""What is killed, under load: every future ends, and nothing is left on any node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from compilepool import NodeLost, SupervisorDied
from compilepool.integrations.ray import RayCompilePool
from tests.proc import descendants, is_alive, wait_until
from tests.ray import ray_jobs as jobs
from tests.ray.clusters import Nodes, parent_of

LONG_S = 120


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_a_raylet_is_killed(pool: RayCompilePool, cluster: Nodes, tmp_path: Path) -> None:
    """Its node is gone with all that was on it. Its jobs run elsewhere; no other job runs again."""
    file = tmp_path / "runs"
    node = cluster.add()
    names = {"": ""}
    futures = [pool.submit(jobs.note, str(file), str(n), 0.3) for n in range(60)]

    def is_used() -> bool:
        names.update({each.name[-8:]: each.name for each in pool.stats().nodes})
        return node.node_id[:8] in names

    assert wait_until(is_used), "a node that joins is used"
    assert wait_until(lambda: len(lines(file)) > 6)
    actor = cluster.actor_on(node)
    below = [actor, *descendants(actor)]
    os.kill(parent_of(actor), signal.SIGKILL)
    assert [future.result(LONG_S) for future in futures] == [str(n) for n in range(60)]
    assert wait_until(lambda: not any(map(is_alive, below)))
    begun = Counter(lines(file))
    assert set(begun) == {str(n) for n in range(60)}
    assert max(begun.values()) <= 2
    assert sum(begun.values()) <= 60 + 2  # the node had two workers
    cluster.remove(node)


def test_an_actor_is_killed(pool: RayCompilePool, cluster: Nodes, tmp_path: Path) -> None:
    """Its jobs run again, and its node gets another actor."""
    file = tmp_path / "runs"
    assert pool.wait_ready(LONG_S)
    before = set(cluster.actors())
    futures = [pool.submit(jobs.note, str(file), str(n), 0.2) for n in range(60)]
    assert wait_until(lambda: len(lines(file)) > 6)
    victim = min(before)
    below = descendants(victim)
    os.kill(victim, signal.SIGKILL)
    assert [future.result(LONG_S) for future in futures] == [str(n) for n in range(60)]
    assert wait_until(lambda: not any(map(is_alive, below)))
    assert sum(Counter(lines(file)).values()) <= 62
    assert wait_until(lambda: len(set(cluster.actors()) - before) == 1)
    assert wait_until(lambda: len(pool.stats().nodes) == 3)


def test_a_supervisor_is_killed(pool: RayCompilePool, cluster: Nodes, tmp_path: Path) -> None:
    """Its node's pool gets another one, as on one machine."""
    file = tmp_path / "runs"
    futures = [pool.submit(jobs.note, str(file), str(n), 0.2) for n in range(40)]
    assert wait_until(lambda: len(lines(file)) > 6)
    os.kill(cluster.processes("supervisor")[0], signal.SIGKILL)
    assert [future.result(LONG_S) for future in futures] == [str(n) for n in range(40)]
    assert pool.stats().restarts.supervisor == 1
    assert pool.stats().nodes_lost == 0


def test_a_worker_is_killed(pool: RayCompilePool) -> None:
    """`retries` is the node's affair."""
    once = pool.options(retries=1).submit(kill_myself_once, os.getpid())
    assert once.result(LONG_S) == "alive"
    assert once.record.attempts == 2


def kill_myself_once(mark: int) -> str:
    path = Path(f"/tmp/compilepool-ray-test-{mark}")
    if path.exists():
        path.unlink()
        return "alive"
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def kill_my_actor(path: str) -> None:
    """End the actor of this node: the parent of the supervisor of this worker."""
    jobs.note(path, "run")
    pid = os.getpid()
    while not Path(f"/proc/{pid}/comm").read_text().startswith("ray::"):
        pid = parent_of(pid)
    os.kill(pid, signal.SIGKILL)
    jobs.hang()


def test_a_job_that_takes_its_node_with_it_is_run_twice_and_no_more(
    pool: RayCompilePool, tmp_path: Path
) -> None:
    file = tmp_path / "runs"
    error = pool.options(name="bomb").submit(kill_my_actor, str(file)).exception(LONG_S)
    assert isinstance(error, NodeLost)
    assert isinstance(error, SupervisorDied)
    assert "bomb" in str(error)
    assert error.node
    assert lines(file) == ["run", "run"]
    assert pool.submit(abs, -1).result(LONG_S) == 1


def test_without_resubmit_it_is_run_once(cluster: Nodes, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    with RayCompilePool(resubmit=False) as pool:
        assert isinstance(pool.submit(kill_my_actor, str(file)).exception(LONG_S), NodeLost)
        assert lines(file) == ["run"]


def test_a_key_gets_another_owner_and_nobody_waits_for_the_dead(
    pool: RayCompilePool, cluster: Nodes, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    futures = [pool.options(flight_key="kernel").submit(jobs.wait_for, str(gate)) for _ in range(8)]
    assert wait_until(lambda: all(future.running() for future in futures))
    [actor] = [pid for pid in cluster.actors() if any(map(is_busy, descendants(pid)))]
    os.kill(actor, signal.SIGKILL)
    gate.touch()
    assert {future.result(LONG_S) for future in futures} == {str(gate)}
    assert len({future.record.node for future in futures}) == 1


def is_busy(pid: int) -> bool:
    """Whether a process is a worker. The pool starts one only if there is a job."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == "cp-worker"


PROGRAM = """
import os, sys, threading
import ray
from compilepool.integrations.ray import RayCompilePool
from tests.ray import ray_jobs as jobs

ray.init(address=sys.argv[1], log_to_driver=False)
pool = RayCompilePool()
futures = [pool.submit(jobs.with_child, sys.argv[2]) for _ in range(20)]
how = sys.argv[3]
if how == "wait":
    sys.stdin.read()
while len(open(sys.argv[2]).read().split()) < 6:
    pass
if how == "exit":
    sys.exit(0)
ray.shutdown()
for future in futures:
    print(type(future.exception(60)).__name__, future.exception())
pool.shutdown()
print(ray.is_initialized())
"""


@pytest.mark.parametrize("how", ["wait", "exit", "shutdown"])
def test_the_program_ends(cluster: Nodes, tmp_path: Path, how: str) -> None:
    """By SIGKILL, by its own will without a word to the pool, or it shuts Ray down."""
    file = tmp_path / "children"
    file.touch()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, cluster.address, str(file), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(lambda: len(lines(file)) >= 6, 60)
    if how == "wait":
        program.kill()
    out, err = program.communicate(timeout=60)
    assert program.returncode == (-signal.SIGKILL if how == "wait" else 0), err
    if how == "shutdown":
        *errors, is_connected_again = out.splitlines()
        assert len(errors) == 20
        assert all(line.startswith("CompilePoolError job") for line in errors), out
        assert is_connected_again == "False"
    assert wait_until(lambda: not any(is_alive(int(pid)) for pid in lines(file)))
    assert wait_until(lambda: not cluster.ours())
