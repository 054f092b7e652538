"""Writes a report: one HTML page that needs no other file and no network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources

from compilepool.light_typing import Any
from compilepool.observe.trace_report.figures import figures_of
from compilepool.observe.trace_report.reading import read_traces


def write_report(
    traces: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Write the report of some traces. A report that is there already is replaced as a whole.

    Args:
        traces: the paths of the traces, at least one. Those of programs that ran side by side go on
            one clock.
        path: the page's path.

    Returns:
        The figures on the page, as `figures_of` makes them.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a trace is none, or is not whole.
    """
    figures = figures_of(read_traces(traces))
    page = render(figures)
    unfinished = f"{os.fspath(path)}.{os.getpid()}.unfinished"
    try:
        with open(unfinished, "w", encoding="utf-8", errors="replace") as file:
            file.write(page)
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    return figures


def render(figures: dict[str, Any]) -> str:
    """Return the page that shows some figures.

    Args:
        figures: the figures, as `figures_of` makes them.
    """
    # No text in the figures can end the element that they are in.
    data = json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c")
    page = _part("page.html")
    for name, content in (
        ("page.css", _part("page.css")),
        ("timeline.js", _part("timeline.js")),
        ("page.js", _part("page.js")),
        ("figures", data),
    ):
        before, after = page.split(f"<!--{name}-->")
        page = before + content + after
    return page


def _part(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
