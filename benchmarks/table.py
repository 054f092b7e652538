"""Prints results as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OURS = "compilepool"
"""The pool that the others are compared with."""


def number(value: float) -> str:
    """Format a number with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10 or value == 0:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}"


def rows(results: dict[str, Any], headlines: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the figure's title, the metric's label, and the summary of each pool, for each row."""
    for figure in results["figures"].values():
        for key, metric in figure["metrics"].items():
            cells = {peer: each.get(key) for peer, each in figure["summary"].items()}
            if any(cells.values()) and (metric["headline"] or not headlines):
                unit = f", {metric['unit']}" if metric["unit"] else ""
                yield figure["title"], metric["label"] + unit, cells


def peers_of(results: dict[str, Any]) -> list[str]:
    """Return the names of all pools that took part in any figure, in their order."""
    found = [peer for figure in results["figures"].values() for peer in figure["runs"]]
    return list(dict.fromkeys(found))


def cell(summary: dict[str, Any] | None, spread: bool = False) -> str:
    """Format a summary: the median, optionally with least and most; or words."""
    if not summary:
        return ""
    if "words" in summary:
        return str(summary["words"])
    text = number(summary["median"])
    if spread and summary["least"] != summary["most"]:
        text += f"\n{number(summary['least'])}…{number(summary['most'])}"
    return text


def show(results: dict[str, Any]) -> None:
    """Print all results, with the spread of each number."""
    from rich.console import Console
    from rich.table import Table

    peers = peers_of(results)
    table = Table(title="median, least…most", show_lines=True)
    table.add_column("", ratio=2)
    for peer in peers:
        table.add_column(peer, justify="right", ratio=1)
    for title, label, cells in rows(results, headlines=False):
        row = (cell(cells.get(peer), spread=True) for peer in peers)
        table.add_row(f"[bold]{title}[/]\n{label}", *row)
    Console().print(table)
    print(", ".join(f"{name}: {fact}" for name, fact in results["machine"].items()))
