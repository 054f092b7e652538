"""The command: compiles kernels among bad jobs, writes the cubins, and prints the results."""

from __future__ import annotations

import time
from pathlib import Path

from compilepool.cli.demo.jobs import DemoJob, Result, all_jobs, run_jobs
from compilepool.cli.demo.report import (
    make_console,
    show_report,
    show_statistics,
    show_summary,
    show_table,
    show_unexpected,
)


def run_demo(output: Path, workers: int, nodes: int = 0) -> bool:
    """Run the demo. Triton must be installed.

    Args:
        output: the folder for the cubins, which is made if needed. The trace file and the
            report are written beside it.
        workers: the number of jobs that run at once, on each node.
        nodes: the number of nodes of a Ray cluster on this machine; 0: run without Ray.

    Returns:
        Whether every kernel was compiled and every bad job failed in its expected way.

    Raises:
        OSError: a file cannot be written.
        CompilePoolError: the pool cannot work at all.
        ImportError: Ray is needed, and it is not installed or too old.
    """
    console = make_console()
    jobs = all_jobs()
    output.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        # A cubin of an earlier run must not pass for one of this run.
        _cubin_path(output, job).unlink(missing_ok=True)
    kernels = sum(job.is_kernel for job in jobs)
    console.print(f"{kernels} Triton kernels for an H100, and {len(jobs) - kernels} bad jobs:")
    results: dict[DemoJob, Result] = {}
    start = time.perf_counter()

    def keep(result: Result) -> None:
        results[result.job] = result
        if result.compiled is not None:
            _cubin_path(output, result.job).write_bytes(result.compiled.cubin)

    trace = output.with_name(f"{output.name}-trace.json")
    report = output.with_name(f"{output.name}-report.html")
    stats = run_jobs(jobs, workers, trace, report, keep, nodes)
    wall_s = time.perf_counter() - start
    in_order = [results[job] for job in jobs]
    show_table(console, in_order)
    show_report(console, in_order)
    show_unexpected(console, in_order)
    show_statistics(console, stats, trace, report)
    show_summary(console, in_order, wall_s=wall_s, workers=workers * max(1, nodes), output=output)
    return all(result.is_as_expected for result in in_order)


def _cubin_path(output: Path, job: DemoJob) -> Path:
    return output / f"{job.name}.cubin"
