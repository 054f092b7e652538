"""`PoolCollector`: the statistics of a pool as metrics of Prometheus.

The names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from compilepool.client.pool import CompilePool
    from compilepool.observe.counters import Quantiles


class PoolCollector(Collector):
    """Tells Prometheus how a pool is doing, whenever it asks. Keeps the pool alive.

    Register it with a registry of `prometheus_client`, and unregister it when the pool is of no
    interest any more. One look calls `CompilePool.stats` once.

    Args:
        pool: the pool.
        name: the value of the label `pool`, which tells the pools of a program apart.
    """

    def __init__(self, pool: CompilePool, name: str = "") -> None:
        self._pool = pool
        self._name = name

    def describe(self) -> Iterable[Metric]:
        """Tell nothing: a registry would else look at the pool when the collector is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Look at the pool."""
        stats = self._pool.stats()
        outcomes = {"done": stats.done, "cancelled": stats.cancelled, **stats.failed}
        yield self._counter("jobs_submitted", "Submitted jobs.", stats.submitted)
        yield self._counter("jobs_ended", "Ended jobs, by outcome.", outcomes, "outcome")
        yield self._counter("jobs_retried", "How often a job began again.", stats.retried)
        yield self._counter("jobs_joined", "Jobs that joined another job's run.", stats.joined)
        yield self._counter("jobs_reused", "Jobs that got a kept result.", stats.reused)
        yield self._gauge("jobs_queued", "Jobs that wait for a worker.", stats.queued)
        yield self._gauge("jobs_running", "Jobs that workers run.", stats.running)
        yield self._summary("job_queue_seconds", "How long jobs waited.", stats.queue_seconds)
        yield self._summary("job_run_seconds", "How long jobs ran.", stats.run_seconds)
        yield self._gauge(
            "job_peak_memory_bytes",
            "The most memory that a job was seen to take.",
            stats.peak_memory,
        )
        yield self._gauge("workers", "Workers, by state.", stats.workers, "state")
        yield self._counter("workers_recycled", "Workers that were replaced.", stats.recycled)
        yield self._counter(
            "processes_died",
            "Processes that died, by themselves or killed.",
            stats.restarts._asdict(),
            "process",
        )
        yield self._gauge(
            "memory_bytes", "Memory of the processes (PSS).", stats.memory._asdict(), "process"
        )

    def _counter(
        self, name: str, text: str, values: float | Mapping[str, float], label: str = ""
    ) -> Metric:
        metric = CounterMetricFamily(f"compilepool_{name}", text, labels=self._labels(label))
        return self._filled(metric, values)

    def _gauge(
        self, name: str, text: str, values: float | Mapping[str, float], label: str = ""
    ) -> Metric:
        metric = GaugeMetricFamily(f"compilepool_{name}", text, labels=self._labels(label))
        return self._filled(metric, values)

    def _labels(self, label: str) -> list[str]:
        return ["pool", label] if label else ["pool"]

    def _filled(
        self,
        metric: CounterMetricFamily | GaugeMetricFamily,
        values: float | Mapping[str, float],
    ) -> Metric:
        if isinstance(values, Mapping):
            for label, value in values.items():
                metric.add_metric([self._name, label], value)
        else:
            metric.add_metric([self._name], values)
        return metric

    def _summary(self, name: str, text: str, seconds: Quantiles) -> Metric:
        metric = SummaryMetricFamily(f"compilepool_{name}", text, labels=["pool"])
        metric.add_metric([self._name], count_value=seconds.number, sum_value=seconds.total)
        for quantile, value in (("0.5", seconds.p50), ("0.95", seconds.p95)):
            labels = {"pool": self._name, "quantile": quantile}
            metric.add_sample(f"compilepool_{name}", labels, value)
        return metric
