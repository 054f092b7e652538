"""Draw by what factor compilepool is better than each other pool.

python -m benchmarks.plot FILE.json OUT.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import OURS, peers_of

COLORS = ("#d55e00", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#0072b2")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart, too."""
MARKERS = "osD^vP"


def ratios(figure: dict[str, Any], key: str) -> dict[str, tuple[float, float, float] | None]:
    """Return by what factor compilepool is better than each other pool; 1 means equal.

    Returns:
        Median, least and most by pool; None for a pool that has words in place of a number. The
        dict is empty if compilepool has words, or no number above 0.
    """
    ours = figure["summary"].get(OURS, {}).get(key, {}).get("median")
    if not ours:
        return {}
    found: dict[str, tuple[float, float, float] | None] = {}
    for peer, summary in figure["summary"].items():
        theirs = summary.get(key)
        if peer == OURS or not theirs:
            continue
        if "words" in theirs:
            found[peer] = None
        elif theirs["least"] > 0:
            values = [theirs[name] / ours for name in ("median", "least", "most")]
            if figure["metrics"][key]["more_is_better"]:
                values = [1 / values[0], 1 / values[2], 1 / values[1]]
            found[peer] = (values[0], values[1], values[2])
    return found


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the plot to a file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 9})
    from matplotlib import pyplot

    lines = [
        (f"{figure['title']}: {metric['label']}", found)
        for figure in results["figures"].values()
        for key, metric in figure["metrics"].items()
        if metric["headline"] and not metric["is_setting"] and (found := ratios(figure, key))
    ]
    peers = [peer for peer in peers_of(results) if peer != OURS]
    most = max((each[2] for _, found in lines for each in found.values() if each), default=1)
    edge = 3 * most
    figure, axes = pyplot.subplots(figsize=(9.5, 1.2 + 0.33 * len(lines)), layout="constrained")
    for row, (_, found) in enumerate(lines):
        axes.axhline(row, color="#e0e0e0", linewidth=0.7, zorder=0)
        for place, peer in enumerate(peers):
            if peer not in found:
                continue
            # A small offset per pool keeps equal values apart.
            y = row + 0.11 * (place - (len(peers) - 1) / 2)
            each, color = found[peer], COLORS[place]
            if each is None:
                axes.plot(edge, y, "x", color=color, markersize=5)
                continue
            axes.plot(each[1:], (y, y), color=color, linewidth=1)
            axes.plot(each[0], y, MARKERS[place], color=color, markersize=4)
    for place, peer in enumerate(peers):
        axes.plot([], [], MARKERS[place], color=COLORS[place], label=peer)
    axes.plot([], [], "x", color="black", label="never, or failed")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(lines)), [label for label, _ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    axes.set_xlabel(f"how many times better {OURS} is (below 1: the other is)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(peers) + 1, frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
