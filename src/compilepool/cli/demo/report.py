"""Prints the results of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compilepool import PoolStats
from compilepool.cli.demo.jobs import Result

_WIDTH_OF_FILES = 120


def make_console() -> Console:
    """Make a console on standard output that takes text between brackets literally."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        # For a file or a pipe, rich assumes 80 columns, which cuts the table.
        console.width = max(console.width, _WIDTH_OF_FILES)
    return console


def show_table(console: Console, results: Sequence[Result]) -> None:
    """Print one line for each job."""
    table = Table("kernel", box=None, pad_edge=False)  # without lines, it fits 80 columns
    table.add_column("seconds", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("outcome")
    for result in results:
        table.add_row(result.job.name, *_figures(result), _styled_outcome(result))
    console.print(table)


def show_unexpected(console: Console, results: Sequence[Result]) -> None:
    """Print everything that is known of each unexpected result."""
    for result in results:
        if not result.is_as_expected:
            console.print(
                f"{result.job.name}: {result.outcome}, expected: {result.job.expected}",
                style="red",
            )
            console.print(result.detail, soft_wrap=True)


def show_report(console: Console, results: Sequence[Result]) -> None:
    """Print the pool's report of one crash: the last one among the bad jobs."""
    for result in [each for each in results if each.outcome.startswith("crashed")][-1:]:
        console.print(f"\n{result.job.name}:")
        console.print(result.detail, soft_wrap=True)
        console.print()


def show_statistics(console: Console, stats: PoolStats, trace: Path, report: Path) -> None:
    """Print the statistics of the pool, and the paths of its trace and report."""
    console.print(
        f"{stats}\ntrace     {trace} (open it in https://ui.perfetto.dev)\n"
        f"report    {report} (open it in a browser)\n",
        soft_wrap=True,
    )


def show_summary(
    console: Console, results: Sequence[Result], *, wall_s: float, workers: int, output: Path
) -> None:
    """Print how many kernels were compiled in what time, and the path of the cubins."""
    kernels = [result for result in results if result.job.is_kernel]
    compiled = [result.compiled for result in kernels if result.compiled is not None]
    compiling_s = sum(each.seconds for each in compiled)
    console.print(
        f"{len(compiled)} of {len(kernels)} kernels compiled in {wall_s:.1f} s wall"
        f" ({compiling_s:.1f} s of compiling) on {workers} worker{'' if workers == 1 else 's'};"
        f" {_words_for_bad_jobs(results)}",
        soft_wrap=True,
    )
    console.print(f"cubins: {output}", soft_wrap=True)


def _figures(result: Result) -> tuple[str, str]:
    if result.compiled is None:
        return "", ""
    return f"{result.compiled.seconds:.2f}", str(len(result.compiled.cubin))


def _styled_outcome(result: Result) -> Text:
    if not result.is_as_expected:
        return Text(result.outcome, style="bold red")
    return Text(result.outcome, style="green" if result.job.is_kernel else "yellow")


def _words_for_bad_jobs(results: Sequence[Result]) -> str:
    bad = [result for result in results if not result.job.is_kernel]
    as_expected = sum(result.is_as_expected for result in bad)
    if all(result.is_as_expected for result in results):
        return f"{len(bad)} bad jobs failed alone"
    return f"{as_expected} of {len(bad)} bad jobs failed as they should"
