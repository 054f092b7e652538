"""The message of an error whose process died, on one screen."""

from __future__ import annotations

import shlex
import signal

from compilepool.client.reports.layout import Part, cut, labelled, screen, sentence, wrap
from compilepool.client.reports.limit import limit_text
from compilepool.client.reports.parts import (
    before_lines,
    frames_of_job,
    in_traceback,
    missing_part,
    native_part,
    output_part,
    phase_part,
    python_part,
    quoted,
)
from compilepool.client.reports.place import Place, crash_place
from compilepool.text import died, signal_name, size_text
from compilepool.wire.failure import Cause, Failure, LeftBehind
from compilepool.wire.native_report import NativeReport, ThreadStack
from compilepool.wire.python_stack import crashed_thread, is_crash

_REASON_COLUMNS = 200
_TRACEBACK_LINES = 12
_ACCESSES = {"read": "reading", "write": "writing", "execute": "executing"}
_LEFT = {
    LeftBehind.NOTHING: "",
    LeftBehind.THREAD: "in a thread that an earlier job may have left",
    LeftBehind.PROCESS: "perhaps by a process that an earlier job has left",
}
_WHILE = {
    Cause.TEARDOWN: "while its arguments and its result were torn down,",
    Cause.IDLE: "later, without a job,",
}
_HAS_ADDRESS = (-signal.SIGSEGV, -signal.SIGBUS)


def failure_text(
    failure: Failure, job: str, log: str, *, folder: str = "", unkept: str = ""
) -> str:
    """The message of the error of a job that ended without a result or an exception of its own.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.
        folder: the path of its crash folder; empty if there is none.
        unkept: why there is no crash folder; empty if there is one, or if none was wanted.

    Returns:
        At most 24 lines of at most 120 columns (the path of the folder may be longer): a sentence
        that says what happened, then the top of each part of the report.
    """
    if failure.cause in (Cause.TIMEOUT, Cause.MEMORY):
        return limit_text(failure, job, log)
    report = NativeReport.of_lines(failure.native.encode())
    end = [] if failure.is_after_job else before_lines(failure)
    if folder and failure.is_after_job:
        end += labelled("report", [folder])
    elif folder:
        end += labelled("replay", [f"compilepool replay {shlex.quote(folder)}"])
    elif failure.kept_by:
        end += labelled("replay", wrap(_kept_by(failure.kept_by)))
    elif unkept:
        label = "report" if failure.is_after_job else "replay"
        end += labelled(label, wrap(f"not possible: {unkept}"))
    if failure.is_crash:
        end += labelled("pool", ["only this job is lost, and the pool works on"])
    elif failure.is_after_job:
        end += labelled("pool", ["no result is lost, and the pool works on"])
    parts = [
        phase_part(failure),
        native_part(report, _crashed_thread(report)),
        _python(failure.text),
        output_part(log),
        missing_part(report),
    ]
    headline = _HEADLINES[failure.cause](failure, report, quoted(job))
    return screen(headline, parts, end)


def _kept_by(pid: int) -> str:
    keeper = f"process {pid}" if pid > 0 else "another process"
    return f"{keeper} has submitted the same job, and its error names the crash folder"


def _of_crash(failure: Failure, report: NativeReport, job: str) -> list[str]:
    first, *more = _ending(failure, report)
    if failure.exitcode == 0 and not _reason(failure):
        more.append("before the job had returned: something in it has called exit")
    pieces = [f"the worker that ran job {job} {first}", *more]
    if words := _LEFT[failure.left_behind]:
        pieces[-1] += ","
        pieces.append(words)
    return sentence(pieces, _where(failure, report, pieces))


def _of_ended(failure: Failure, report: NativeReport, job: str) -> list[str]:
    first, *more = _ending(failure, report)
    pieces = [f"job {job} has ended, but {_WHILE[failure.cause]}", f"its worker {first}", *more]
    return sentence(pieces, _where(failure, report, pieces))


def _where(failure: Failure, report: NativeReport, pieces: list[str]) -> list[str]:
    """Versions of the piece that says where a process has crashed; a comma goes before it."""
    place = crash_place(failure, report) if _has_crashed(failure, report) else Place()
    where = [f"in {words}" for words in (str(place), place.function) if words]
    if where:
        pieces[-1] += ","
    return where


def _of_start(failure: Failure, report: NativeReport, job: str) -> list[str]:
    how = "could not be started" if failure.exitcode is None else died(failure.exitcode)
    first, *more = _ending(failure, report, how)
    pieces = [
        f"job {job} has no worker to run it: five times in a row one could not be started,",
        f"the last time its process {first}",
        *more,
    ]
    if failure.module:
        pieces.append(f"while it imported {quoted(failure.module)}")
    pieces[-1] += ";"
    return sentence([*pieces, "see what the initializer, the preload and the machine's limits do"])


def _of_fork_server(failure: Failure, report: NativeReport, job: str) -> list[str]:
    first, *more = _ending(failure, report)
    pieces = [f"job {job} has lost its fork server for the second time: it {first}", *more]
    pieces[-1] += ";"
    advice = "find out what ends it (the kernel log names an out-of-memory kill)"
    return sentence([*pieces, advice])


def _of_preload(failure: Failure, _report: NativeReport, job: str) -> list[str]:
    if not failure.module:
        happened, advice = (
            f"the fork server {died(failure.exitcode)} while starting,",
            "see what it wrote to stderr,",
        )
    else:
        how = f"{died(failure.exitcode)} when imported"
        if failure.exitcode is None:
            how = "could not be imported"
        if reason := _reason(failure):
            how += f": {reason}"
        happened = f"preload module {quoted(failure.module)} {how},"
        advice = "fix it or leave it out,"
    return sentence([happened, f"so job {job} has no worker;", advice, "and make a new pool"])


_HEADLINES = {
    Cause.CRASH: _of_crash,
    Cause.TEARDOWN: _of_ended,
    Cause.IDLE: _of_ended,
    Cause.START: _of_start,
    Cause.FORK_SERVER: _of_fork_server,
    Cause.PRELOAD: _of_preload,
}


def _ending(failure: Failure, report: NativeReport, how: str = "") -> list[str]:
    """How the process ended, in pieces of a sentence; `how` replaces the words of `died`."""
    how = how or died(failure.exitcode)
    if reason := _reason(failure):
        return [f"{how}: {reason}"]
    if failure.exitcode == -signal.SIGKILL:
        return _killed(failure)
    if _has_crashed(failure, report):
        return [_crashed(failure, report)]
    return [how]


def _reason(failure: Failure) -> str:
    """The reason that the supervisor knows, in one line; empty if it has a traceback or nothing."""
    text = failure.text.strip()
    return "" if is_crash(text) or "\n" in text else cut(text, _REASON_COLUMNS)


def _has_crashed(failure: Failure, report: NativeReport) -> bool:
    """Whether the process died of a fatal signal of its own, and something tells of it."""
    is_signal = failure.exitcode is not None and failure.exitcode < 0
    is_told = is_crash(failure.text) or report.crash is not None
    return is_signal and is_told and failure.exitcode != -signal.SIGKILL


def _crashed(failure: Failure, report: NativeReport) -> str:
    how = f"crashed with {signal_name(-(failure.exitcode or 0))}"
    site = report.crash
    if site is None or site.address is None or failure.exitcode not in _HAS_ADDRESS:
        return how
    return f"{how}, {_ACCESSES.get(site.access or '', 'accessing')} address {site.address:#x}"


def _killed(failure: Failure) -> list[str]:
    """How a process ended that SIGKILL has killed, which the pool has not sent."""
    how = died(failure.exitcode)
    peak = f"it or a child of it had {size_text(failure.peak_bytes)} at its peak"
    if failure.is_out_of_memory:
        reason = [
            f"{how}, probably for memory:",
            "the kernel's out-of-memory killer struck just then;",
            f"{peak};",
            "give it more memory, or the pool fewer workers",
        ]
        return reason if failure.peak_bytes else [*reason[:2], reason[-1]]
    if failure.is_out_of_memory is None:
        pieces = [f"{how}, and not by the pool"]
    else:
        pieces = [
            f"{how},",
            "by neither the pool nor, as far as the kernel counts, for lack of memory",
        ]
    if failure.peak_bytes:
        pieces[-1] += ";"
        pieces.append(peak)
    return pieces


def _crashed_thread(report: NativeReport) -> ThreadStack | None:
    return next((thread for thread in report.threads if thread.is_crashed), None)


def _python(text: str) -> Part:
    """The frames of the thread that crashed, or of the first thread if the other is not Python's.

    If the text is no report of a crash, the end of the traceback in it.
    """
    if not is_crash(text):
        lines = text.rstrip().split("\n")
        return Part(
            "python",
            lines if len(lines) > 1 else [],
            _TRACEBACK_LINES,
            is_end_shown=True,
            remark=lambda hidden: in_traceback(hidden, "earlier line"),
        )
    thread = crashed_thread(text)
    frames = frames_of_job(thread)
    if thread is None or thread.is_current:
        return python_part(frames)
    whose = "the first of Python's does this" if frames else "none of Python's is in a job"
    return python_part(frames, f"(the thread that crashed is not Python's; {whose})")
