"""Measures all figures with all pools, in turns."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from benchmarks import machine, peers
from benchmarks.measure import adopt_orphans, run_child
from benchmarks.metric import Figure, Scale

Say = Callable[[str], None]


def run(
    names: Sequence[str], peer_names: Sequence[str], rounds: int | None, scale: Scale, say: Say
) -> dict[str, Any]:
    """Measure.

    Args:
        names: the names of the figures.
        peer_names: the names of the pools. One that is not installed is reported and skipped.
        rounds: the number of rounds; None: each figure's own number.
        scale: how much to measure.
        say: a function that gets a line of text for each measurement.

    Returns:
        All results, as a JSON object.
    """
    adopt_orphans()
    skipped = {peer: why for peer in peer_names if (why := peers.missing(peer))}
    for peer, why in skipped.items():
        say(f"without {peer}: {why}")
    taking_part = [peer for peer in peer_names if peer not in skipped]
    results: dict[str, Any] = {"machine": machine.facts(), "quick": scale.quick}
    results["skipped"] = skipped
    results["figures"] = {}
    for name in names:
        found = _figure(name, taking_part, rounds, scale, say)
        if found:
            results["figures"][name] = found
    return results


def _figure(
    name: str, peer_names: Sequence[str], rounds: int | None, scale: Scale, say: Say
) -> dict[str, Any]:
    module = importlib.import_module(f"benchmarks.figures.{name}")
    figure: Figure = module.FIGURE
    why = module.missing() if hasattr(module, "missing") else ""
    if why:
        say(f"without {name}: {why}")
        return {}
    runs: dict[str, list[dict[str, Any]]] = {
        peer: [] for peer in peer_names if peer in (figure.peers or peer_names)
    }
    with tempfile.TemporaryDirectory() as folder:
        here = replace(scale, folder=folder)
        if hasattr(module, "prepare"):
            say(f"{name}: {run_child(name, 'prepare', here, figure.timeout_s)}")
        for turn in range(rounds or figure.rounds):
            for peer in list(runs)[:: -1 if turn % 2 else 1]:
                began = time.monotonic()
                values = run_child(name, peer, here, figure.timeout_s)
                runs[peer].append(values)
                took = time.monotonic() - began
                say(f"{name} {turn + 1}, {peer}, {took:.1f} s: {_brief(values)}")
    return {
        "title": figure.title,
        "metrics": {key: asdict(metric) for key, metric in figure.metrics.items()},
        "runs": runs,
        "summary": {peer: summarize(figure.metrics, each) for peer, each in runs.items()},
    }


def _brief(values: dict[str, Any]) -> str:
    parts = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    ]
    return ", ".join(parts[:5])


def summarize(keys: Sequence[str] | dict[str, Any], runs: Sequence[dict[str, Any]]) -> Any:
    """Return median, least and most of each metric; words instead, if a run has words."""
    summary = {}
    for key in keys:
        values = [each[key] for each in runs if key in each]
        words = [value for value in values if isinstance(value, str)]
        words += [each["error"] for each in runs if "error" in each]
        if words:
            summary[key] = {"words": max(set(words), key=words.count)}
        elif values:
            summary[key] = {"median": median(values), "least": min(values), "most": max(values)}
    return summary
