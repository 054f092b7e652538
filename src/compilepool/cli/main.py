"""The command `compilepool`: its subcommands, their options and exit codes.

docs/command_line.md lists the exit codes. Each subcommand imports its
implementation when it runs, so that `compilepool --help` stays fast.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

import compilepool
from compilepool.cli.grouped_help import GroupedCommands

# Exit codes.
_WRONG_USE = 2
_RAY_NODES = 3
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

_RUN = "Run"
_SEE = "See what runs"
_CRASHES = "Look into crashes"

app = typer.Typer(
    no_args_is_help=True,
    cls=GroupedCommands,
    rich_markup_mode=None,
)


class OnCrash(enum.StrEnum):
    """The values of the argument `on_crash` of `compilepool.integrations.torch.install`."""

    RAISE = "raise"
    IN_PROCESS = "in_process"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compilepool {compilepool.__version__}")
        raise typer.Exit


def _identities(incomplete: str) -> list[str]:
    """The shared pools, for a shell that completes."""
    from compilepool.cli.shared_pools.place import meeting_place

    with contextlib.suppress(OSError, ValueError), meeting_place() as place:
        names = [] if place is None else place.names()
        return [name for name in names if name.startswith(incomplete)]
    return []


def _crash_folders(incomplete: str) -> list[str]:
    """The names of crash folders, for a shell that completes."""
    from compilepool.cli.crashes.list_command import names_of_crashes

    with contextlib.suppress(OSError):
        return [name for name in names_of_crashes() if name.startswith(incomplete)]
    return []


@app.callback()
def compilepool_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A crash-isolated, orphan-proof pool of worker processes for compilations."""


@app.command(rich_help_panel=_RUN)
def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", file_okay=False, help="The folder for the compiled cubins."),
    ] = Path("compilepool-demo"),
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            min=1,
            help="The number of jobs that run at once.",
            show_default="the number of CPUs that this process may use",
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Compile on three nodes of a Ray cluster on this machine."),
    ] = False,
) -> None:
    """Compile Triton kernels for an H100, some of which crash.

    Needs Triton, and no GPU. The exit code is 0 if all went as it should, and 1 if not.
    """
    try:
        with _interrupted_once_at_most():
            is_success = _demo(output, workers, _RAY_NODES if ray else 0)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if is_success else 1)


def _demo(output: Path, workers: int | None, nodes: int) -> bool:
    if importlib.util.find_spec("triton") is None:
        typer.echo("the demo needs Triton: pip install 'compilepool[triton]'", err=True)
        raise typer.Exit(_WRONG_USE)
    from compilepool.cli.demo.command import run_demo
    from compilepool.linux.cpus import usable_cpus

    workers = usable_cpus() if workers is None else workers
    try:
        return run_demo(output, max(1, workers // max(1, nodes)), nodes)
    except ImportError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_WRONG_USE) from None
    except compilepool.CompilePoolError as error:
        typer.echo(str(error), err=True)
        return False
    except OSError as error:
        typer.echo(f"cannot write: {error}", err=True)
        raise typer.Exit(_WRONG_USE) from None


@app.command(rich_help_panel=_SEE)
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for bug reports and programs.")
    ] = False,
) -> None:
    """Try what this machine allows, and what each missing thing costs.

    The exit code is 0 if a pool can run here, and 1 if not.
    """
    from compilepool.cli.doctor.report import run_doctor

    raise typer.Exit(0 if run_doctor(as_json=as_json) else 1)


@app.command(rich_help_panel=_CRASHES)
def crashes(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the jobs that crashed, the newest first."""
    from compilepool.cli.crashes.list_command import list_crashes

    try:
        list_crashes(as_json=as_json)
    except OSError as error:
        typer.echo(f"cannot read: {error}", err=True)
        raise typer.Exit(_WRONG_USE) from None


@app.command(rich_help_panel=_CRASHES)
def replay(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="A crash folder, or its name in `compilepool crashes`.",
            autocompletion=_crash_folders,
        ),
    ],
    gdb: Annotated[bool, typer.Option("--gdb", help="Run the job under gdb.")] = False,
) -> None:
    """Run a crashed job again, in a new worker.

    The exit code is 0 if the job crashes the same way, 1 if it does not, and 2 if the folder cannot
    be replayed.
    """
    try:
        with _interrupted_once_at_most():
            is_reproduced = _replay(folder, gdb)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if is_reproduced else 1)


def _replay(folder: str, gdb: bool) -> bool:
    from compilepool.cli.crashes.replay_command import replay_crash

    try:
        return replay_crash(folder, gdb=gdb)
    except compilepool.CompilePoolError as error:
        typer.echo(str(error), err=True)
        return False
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_WRONG_USE) from None


@app.command(rich_help_panel=_RUN, context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- PROGRAM [ARGUMENT]...", help="The program and its arguments."),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            min=1,
            help="The number of kernels that compile at once.",
            show_default="torch's compile_threads",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="The time that a kernel may compile, in seconds.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(help="The memory that compiling a kernel may take, such as 8GiB."),
    ] = None,
    on_crash: Annotated[
        OnCrash,
        typer.Option(
            help="What to do with a kernel whose worker crashed: fail, or compile it in the program"
            " itself."
        ),
    ] = OnCrash.RAISE,
    progress: Annotated[
        bool, typer.Option("--progress", help="Show on the terminal what is being compiled.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="The trace file to write, for https://ui.perfetto.dev.")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Let the program's processes on this node share a pool."),
    ] = False,
    linger: Annotated[
        float | None,
        typer.Option(
            help="How long a shared pool waits for the next program after its last one, in seconds."
        ),
    ] = None,
) -> None:
    """Run a program whose torch.compile uses a pool.

    The program needs no change. The command sets COMPILEPOOL_TORCH=1 for it, and passes the options
    to the pool. --shared and --linger become COMPILEPOOL_SHARED and COMPILEPOOL_LINGER, which every
    CompilePool of the program obeys. The exit code is that of the program.
    """
    from compilepool.cli.run_command import run_program

    options = {
        "max_workers": workers,
        "timeout": timeout,
        "memory_limit": memory_limit,
        "on_crash": on_crash.value,
        "progress": progress or None,
        "trace": None if trace is None else str(trace.absolute()),
    }
    try:
        run_program(command, options, is_shared=shared, linger_s=linger)
    except (OSError, ValueError, TypeError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_WRONG_USE) from None


@app.command(rich_help_panel=_SEE)
def top(
    once: Annotated[bool, typer.Option("--once", help="Print one look as text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one look as JSON.")] = False,
    client: Annotated[
        str, typer.Option(help="Show only what concerns clients with this in their PID or name.")
    ] = "",
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, help="The time between two looks, in seconds.")
    ] = 1.0,
) -> None:
    """Watch all pools of this user on this machine.

    The keys: s sorts, r reverses, f filters by client, d shows a job's stacks, x cancels a job, z
    lets a pool sleep, q quits. Enter shows more of a row.
    """
    from compilepool.cli.top.command import show_pools

    with _told_in_a_line():
        show_pools(once=once, is_json=as_json, client=client, interval_s=interval)


@app.command(rich_help_panel=_SEE)
def report(
    traces: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRACE...",
            help="What CompilePool(trace=...) has written; several of programs side by side.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, help="The page to write.")
    ] = Path("report.html"),
) -> None:
    """Make an HTML page of traces.

    It shows where the time went, what was slow, and what failed.
    """
    from compilepool.cli.report_command import make_report

    with _told_in_a_line():
        make_report(traces, output)


@app.command(rich_help_panel=_SEE)
def ps(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the pools that your programs on this node share."""
    from compilepool.cli.shared_pools.list_command import list_pools

    with _told_in_a_line():
        list_pools(as_json=as_json)


@app.command(rich_help_panel=_SEE)
def stop(
    identities: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IDENTITY...",
            autocompletion=_identities,
            help="The pools, as `compilepool ps` names them; the first digits will do.",
        ),
    ] = None,
    all_pools: Annotated[bool, typer.Option("--all", help="End all shared pools.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """End shared pools, and wait until nothing of them is left.

    A program that still has jobs there starts another pool, and runs them again. The exit code is 0
    if all pools have ended, 1 if one has not, and 2 if there is no such pool.
    """
    if bool(identities) == all_pools:
        typer.echo("name the pools to stop, or use --all", err=True)
        raise typer.Exit(_WRONG_USE)
    from compilepool.cli.shared_pools.stop_command import stop_pools

    with _told_in_a_line():
        is_success = stop_pools(identities, as_json=as_json)
    raise typer.Exit(0 if is_success else 1)


@contextlib.contextmanager
def _told_in_a_line() -> Iterator[None]:
    """Have what is wrong told in a line, with the exit code for it."""
    try:
        yield
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_WRONG_USE) from None


@contextlib.contextmanager
def _interrupted_once_at_most() -> Iterator[None]:
    """Within the block, let only the first Ctrl-C raise KeyboardInterrupt.

    A second one must not break the cleanup after the first, nor the exit of the interpreter.
    Therefore SIGINT stays ignored after the first one.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a shell's background job ignores SIGINT
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    app()
