"""Runs the jobs of the demo in a pool, and puts the outcome of each into words."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from compilepool import CompilePool, CompilePoolError, PoolStats, PreloadFailed, WorkerCrashed
from compilepool.cli.demo.compilation import PRELOAD, CompiledVariant, compile_variant
from compilepool.cli.demo.faults import FAULTS
from compilepool.cli.demo.variants import VARIANTS

if TYPE_CHECKING:
    from compilepool.integrations.ray import RayCompilePool

COMPILED = "cubin"
"""The outcome of a kernel that compiles."""

_ELF_MAGIC = b"\x7fELF"


@dataclasses.dataclass(frozen=True)
class DemoJob:
    """A job of the demo.

    Attributes:
        name: the name of the kernel's variant or of the bad job.
        run: the function that the job calls.
        expected: the expected outcome.
    """

    name: str
    run: Callable[[], CompiledVariant]
    expected: str = COMPILED

    @property
    def is_kernel(self) -> bool:
        """Whether the job compiles a kernel; False: it is a bad job."""
        return self.expected == COMPILED


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a job.

    Attributes:
        job: the job.
        outcome: the outcome in a few words.
        compiled: the compiled variant; None if the job failed.
        detail: everything that is known of a failure.
    """

    job: DemoJob
    outcome: str
    compiled: CompiledVariant | None = None
    detail: str = ""

    @property
    def is_as_expected(self) -> bool:
        """Whether the outcome is the expected one."""
        return self.outcome == self.job.expected


def all_jobs() -> list[DemoJob]:
    """Make a job for every variant of every kernel, with the bad jobs spread among them."""
    jobs = [DemoJob(each.name, functools.partial(compile_variant, each)) for each in VARIANTS]
    for number, fault in enumerate(FAULTS, 1):
        place = number * len(VARIANTS) // (len(FAULTS) + 1)
        jobs.insert(place, DemoJob(fault.name, fault.run, fault.outcome))
    return jobs


def run_jobs(
    jobs: Sequence[DemoJob],
    workers: int,
    trace: Path,
    report: Path,
    on_result: Callable[[Result], None],
    nodes: int = 0,
) -> PoolStats:
    """Run the jobs, and show progress. Triton's cache is empty, so every compilation is a real one.

    Args:
        jobs: jobs with different names.
        workers: the number of jobs that run at once, on each node.
        trace: the path of the trace file.
        report: the path of the report.
        on_result: a function that is called with each result, as soon as it is there. (Results are
            not yielded by a generator: a Ctrl-C outside of it would not reach the pool's `with`
            block.)
        nodes: the number of nodes of a Ray cluster on this machine; 0: run without Ray.

    Returns:
        The statistics of the pool.

    Raises:
        CompilePoolError: the pool cannot work at all.
        ImportError: Ray is needed, and it is not installed or too old.
        OSError: the trace cannot be written.
    """
    with _temporary_triton_files(), _pool(workers, trace, report, nodes) as pool:
        futures: dict[Future[CompiledVariant], DemoJob] = {
            pool.options(name=job.name).submit(job.run): job for job in jobs
        }
        for future in as_completed(futures):
            on_result(_result(futures[future], future))
        return pool.stats()


def _pool(
    workers: int, trace: Path, report: Path, nodes: int
) -> AbstractContextManager[CompilePool | RayCompilePool]:
    if not nodes:
        return CompilePool(workers, preload=PRELOAD, progress=True, trace=trace, report=report)
    from compilepool.cli.demo.cluster import pool_over_nodes

    return pool_over_nodes(nodes, workers, trace, report)


@contextlib.contextmanager
def _temporary_triton_files() -> Iterator[None]:
    """Within the block, give new processes a temporary folder for Triton's cache and other files.

    A ptxas that is killed leaves its input file, which is removed with the folder.
    """
    with (
        _temporary_folder() as root,
        _environment(
            TRITON_CACHE_DIR=os.path.join(root, "cache"), TMPDIR=root, TRITON_INTERPRET="0"
        ),
    ):
        yield


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _result(job: DemoJob, future: Future[CompiledVariant]) -> Result:
    error = future.exception()
    if isinstance(error, PreloadFailed):
        raise error  # every job fails with it: report it once
    if error is not None:
        remote = f"{error.__cause__ or ''}"
        return Result(job, outcome_of(error), detail=f"{error}{remote}")
    compiled = future.result()
    if not compiled.cubin.startswith(_ELF_MAGIC):
        return Result(job, "not an ELF file")
    return Result(job, COMPILED, compiled)


def outcome_of(error: BaseException) -> str:
    """Put the failure of a job into a few words."""
    first_line = str(error).partition("\n")[0]
    if isinstance(error, WorkerCrashed):
        if error.signal is not None:
            # A real-time signal has no name.
            return f"crashed: {getattr(error.signal, 'name', f'signal {error.signal}')}"
        return f"exited with code {error.exitcode}"
    if isinstance(error, CompilePoolError):
        return first_line
    return f"raised {type(error).__name__}: {first_line}"


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    # SIGINT is blocked until the folder has an owner: a Ctrl-C in between would leave it behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return tempfile.TemporaryDirectory(prefix="compilepool-demo-", ignore_cleanup_errors=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
