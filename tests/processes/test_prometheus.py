"""Metrics: Prometheus reads what the statistics of a pool say."""

from __future__ import annotations

import ctypes
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from compilepool import CompilePool
from compilepool.integrations.prometheus import PoolCollector
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """What Prometheus's own parser reads, without the label `pool`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "pool"}
            assert sample.labels["pool"] == "kernels"
            found[sample.name, tuple(sorted(labels.items()))] = sample.value
    return found


@pytest.fixture
def registry(pool: CompilePool) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PoolCollector(pool, name="kernels"))
    return registry


@pytest.fixture
def url(registry: CollectorRegistry) -> Iterator[str]:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE_S)


def test_prometheus_gets_what_the_statistics_say(
    pool: CompilePool, url: str, tmp_path: Path
) -> None:
    def asked() -> Samples:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return samples(answer.read().decode())

    before = asked()
    assert before["compilepool_jobs_submitted_total", ()] == 0
    with Gate(tmp_path / "gate") as gate:
        waiting = [pool.submit(wait_at, gate.path) for _ in range(5)]
        assert wait_until(lambda: sum(future.running() for future in waiting) == 2)
        during = asked()
        assert during["compilepool_jobs_queued", ()] == 3
        assert during["compilepool_jobs_running", ()] == 2
        assert during["compilepool_workers", (("state", "busy"),)] == 2
        assert during["compilepool_memory_bytes", (("process", "workers"),)] > 0
        assert waiting.pop().cancel()
        gate.open()
        for future in waiting:
            future.result(PATIENCE_S)
    assert isinstance(pool.submit(int, "no number").exception(PATIENCE_S), ValueError)
    assert pool.submit(ctypes.string_at, 0).exception(PATIENCE_S) is not None
    pool.submit(bytearray, 40 << 20).result(PATIENCE_S)
    after, stats = asked(), pool.stats()
    ended = {
        labels[0][1]: value
        for (name, labels), value in after.items()
        if name == "compilepool_jobs_ended_total"
    }
    assert ended == {"done": 5, "cancelled": 1, "ValueError": 1, "WorkerCrashed": 1}
    assert after["compilepool_jobs_submitted_total", ()] == 8
    assert after["compilepool_job_run_seconds_count", ()] == 7
    assert after["compilepool_job_run_seconds_sum", ()] == stats.run_seconds.total > 0
    quantile = (("quantile", "0.95"),)
    assert after["compilepool_job_run_seconds", quantile] == stats.run_seconds.p95 > 0
    assert after["compilepool_job_queue_seconds_sum", ()] == stats.queue_seconds.total
    assert after["compilepool_job_peak_memory_bytes", ()] == stats.peak_memory > 30 << 20
    assert after["compilepool_processes_died_total", (("process", "worker"),)] == 1


def test_a_text_file_has_the_last_counts_of_a_pool_that_has_ended(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    with CompilePool(1, single_flight=True) as pool:
        registry.register(PoolCollector(pool, "kernels"))
        assert [pool.submit(abs, -1).result(PATIENCE_S) for _ in range(3)] == [1, 1, 1]
    path = tmp_path / "compile.prom"
    write_to_textfile(str(path), registry)
    found = samples(path.read_text())
    assert found["compilepool_jobs_ended_total", (("outcome", "done"),)] == 3
    assert found["compilepool_jobs_reused_total", ()] == 2
    assert found["compilepool_workers", (("state", "busy"),)] == 0
