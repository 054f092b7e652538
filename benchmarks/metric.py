"""The types of a figure, its metrics and its scale."""

from __future__ import annotations

from dataclasses import dataclass

Value = float | str
"""A number, or the reason in words why there is none."""


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Attributes:
        quick: whether to measure so little that the numbers mean nothing, to test the benchmarks.
        client_gb: the largest memory of a big client, in GB.
        folder: the folder in which a figure finds the files that it has prepared for all pools.
    """

    quick: bool = False
    client_gb: float = 8.0
    folder: str = ""


@dataclass(frozen=True)
class Metric:
    """One number of a figure.

    Attributes:
        label: the name of the metric, for tables.
        unit: its unit.
        more_is_better: whether a larger value is better, as for throughputs and shares.
        headline: whether the metric is in docs/comparison.md and in the plot.
        is_setting: whether it is a setting of the measurement, where no value is better.
    """

    label: str
    unit: str
    more_is_better: bool = False
    headline: bool = False
    is_setting: bool = False


@dataclass(frozen=True)
class Figure:
    """Metrics that are measured together, in one process for each pool and round.

    Attributes:
        title: the name of the figure.
        metrics: the metrics by the keys that `measure` of the figure's module returns.
        rounds: the number of rounds, unless the command line sets it.
        timeout_s: the time that a measurement may take, in seconds.
        peers: the pools that take part; empty: all.
    """

    title: str
    metrics: dict[str, Metric]
    rounds: int = 5
    timeout_s: float = 120.0
    peers: tuple[str, ...] = ()
