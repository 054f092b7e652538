"""What a figure tells."""

from __future__ import annotations

from dataclasses import dataclass

Value = float | str
"""A number, or in words why there is none."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        quick: so little that the numbers say nothing, to see that all works.
        client_gb: the memory of a big client, at most.
        folder: where a figure finds what it has prepared, once for all peers.
    """

    quick: bool = False
    client_gb: float = 8.0
    folder: str = ""


@dataclass(frozen=True)
class Metric:
    """One number of a figure.

    Attributes:
        label: what it is, for tables.
        unit: its unit.
        more_is_better: of throughputs and shares.
        headline: whether it stands in docs/comparison.md and in the plot.
        is_setting: it is what was measured with, and none is better.
    """

    label: str
    unit: str
    more_is_better: bool = False
    headline: bool = False
    is_setting: bool = False


@dataclass(frozen=True)
class Figure:
    """What is measured together, in one process for each peer and round.

    Attributes:
        title: what it is.
        metrics: what `measure` of its module gives, by key.
        rounds: how often, unless the command line says otherwise.
        timeout_s: after how long a measurement has failed.
        peers: whom it is for; all, if there are none.
    """

    title: str
    metrics: dict[str, Metric]
    rounds: int = 5
    timeout_s: float = 120.0
    peers: tuple[str, ...] = ()
