"""Why a worker died: what `Deaths` makes of it, with real processes in place of workers."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import compilepool
from compilepool.client.connection.setup import PoolSetup
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch import deaths
from compilepool.supervisor.watch.deaths import Deaths
from compilepool.supervisor.watch.evidence import Crash, Verdict
from compilepool.wire.failure import Cause, Failure, ProcessMemory
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.native_report import NativeReport
from compilepool.wire.python_stack import fatal_signal
from compilepool.wire.status_page import StatusPage, UsedBefore
from tests.crashed_jobs import options

PACKAGE = Path(compilepool.__file__).parent
MIB = 1 << 20

Start = Callable[[str], tuple[WorkerLink, int]]


@pytest.fixture
def dead() -> Iterator[Start]:
    """Makes the link of a process that has run some code and is dead; also its exit code."""
    with contextlib.ExitStack() as stack:

        def start(code: str) -> tuple[WorkerLink, int]:
            link = stack.enter_context(contextlib.closing(WorkerLink(1, None, lambda _: None)))
            fd = link.fds.crash
            command = [sys.executable, "-c", f"fd = {fd}; {code}"]
            process = stack.enter_context(
                subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.PIPE)
            )
            link.started(process.pid, os.pidfd_open(process.pid))
            process.communicate(b"go")
            return link, process.returncode

        yield start


CRASH = (
    "import faulthandler, signal, sys; sys.stdin.read(); faulthandler.enable(fd);"
    " signal.raise_signal({})"
)


def watched() -> Deaths:
    return Deaths(PoolSetup(options()).config)


def missing(failure: Failure) -> str:
    return " ".join(NativeReport.of_lines(failure.native.encode()).missing)


def test_a_worker_dies_under_its_job_once_it_was_ready_and_while_starting_before(
    dead: Start,
) -> None:
    link, exitcode = dead("raise SystemExit(7)")
    assert watched().of_worker(link, exitcode, {}, 1) == Failure(Cause.START, 7)
    link.is_ready = True
    assert watched().of_worker(link, exitcode, {}, 1) == Failure(Cause.CRASH, 7)


def test_what_is_wrong_with_its_socket_says_more_than_its_own_words(dead: Start) -> None:
    link, exitcode = dead("raise SystemExit(1)")
    told = {"error": "no memory", "peak_bytes": 5}
    failure = watched().of_worker(link, exitcode, told, 1)
    assert (failure.text, failure.peak_bytes) == ("no memory", 5)
    link.trouble = "it sent nonsense: x"
    assert watched().of_worker(link, exitcode, told, 1).text == "it sent nonsense: x"


def test_of_a_crash_that_nobody_saw_its_own_words_remain(dead: Start) -> None:
    link, exitcode = dead(CRASH.format(int(signal.SIGABRT)))
    failure = watched().of_worker(link, exitcode, {}, 1)
    assert failure.exitcode == -signal.SIGABRT
    assert fatal_signal(failure.text.encode()) is signal.SIGABRT
    assert "the process was dead before anybody looked at it" in missing(failure)


def test_a_crash_without_words_has_lost_its_handler_or_its_stack(dead: Start) -> None:
    link, exitcode = dead("import os; os.kill(os.getpid(), 11)")
    failure = watched().of_worker(link, exitcode, {}, 1)
    assert (failure.exitcode, failure.text) == (-signal.SIGSEGV, "")
    assert "has replaced the handler of that signal, or its stack was full" in missing(failure)


def test_a_crash_that_was_looked_into_has_its_signal_although_it_was_killed(dead: Start) -> None:
    link, exitcode = dead("import os; os.kill(os.getpid(), 9)")
    case = watched()
    case.evidence(link).crash = Crash(signal.SIGBUS, "words", 1.0, "native")
    failure = case.of_worker(link, exitcode, {}, 1)
    assert (failure.exitcode, failure.text, failure.native) == (-signal.SIGBUS, "words", "native")
    assert failure.is_out_of_memory is None
    case.forget(link)
    assert case.of_worker(link, exitcode, {}, 1).exitcode == -signal.SIGKILL


def test_a_verdict_says_why_the_job_ended_whatever_ended_its_worker(dead: Start) -> None:
    link, exitcode = dead("import os; os.kill(os.getpid(), 9)")
    took = (ProcessMemory(1, "cc1plus", 3 * MIB),)
    case, verdict = watched(), Verdict(Cause.MEMORY, 2 * MIB, 3 * MIB, took)
    verdict.snapshot = JobSnapshot("running", "python", "native", "ptxas", 1.5)
    case.evidence(link).verdict = verdict
    failure = case.of_worker(link, exitcode, {"error": "x"}, 1)
    assert failure == Failure(
        Cause.MEMORY,
        text="python",
        native="native",
        phase="ptxas",
        phase_s=1.5,
        peak_bytes=3 * MIB,
        limit=2 * MIB,
        processes=took,
    )


def test_what_the_job_has_used_is_what_its_worker_had_not_used_before(dead: Start) -> None:
    link, exitcode = dead("raise SystemExit(1)")
    page = StatusPage(link.fds.status)
    since = page.begin(9, UsedBefore(2.0, 10 * MIB, MIB, 50 * MIB))
    page.set_phase("ptxas")
    usage = watched().of_worker(link, exitcode, {"cpu_s": 3.5, "peak_bytes": 60 * MIB}, 2).usage
    assert (usage.started, usage.cpu_s, usage.peak_bytes) == (since, 1.5, 50 * MIB)
    assert (usage.pid, usage.attempts) == (link.pid, 2)
    assert "ptxas" in usage.phases
    link.note_memory(70 * MIB)  # more than the kernel knows of any one process
    told = {"cpu_s": "much", "peak_bytes": 40 * MIB}  # an earlier job's child had more
    usage = watched().of_worker(link, exitcode, told, 1).usage
    assert (usage.cpu_s, usage.peak_bytes) == (0.0, 70 * MIB)


@pytest.mark.parametrize(("exitcode", "is_preload"), [(-11, True), (1, True), (-9, False)])
def test_a_preload_fails_by_its_own_doing_only(exitcode: int, is_preload: bool) -> None:
    why = deaths.of_fork_server(exitcode, "heavy", "words")
    expected = Failure(Cause.PRELOAD, exitcode, "heavy", "words") if is_preload else None
    assert deaths.of_preload(why, "heavy") == expected


@pytest.mark.parametrize("cause", Cause)
def test_who_waits_for_a_worker_is_told_of_its_start(cause: Cause) -> None:
    is_of_job = cause in (Cause.CRASH, Cause.TEARDOWN, Cause.IDLE, Cause.FORK_SERVER)
    expected = Failure(Cause.START if is_of_job else cause, 1, "heavy")
    assert deaths.without_worker(Failure(cause, 1, "heavy")) == expected


def test_nothing_else_makes_a_failure() -> None:
    makers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Failure", "why._replace"):
                makers.add(str(path.relative_to(PACKAGE)))
    assert makers == {"supervisor/watch/deaths.py"}
