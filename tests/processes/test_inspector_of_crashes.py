"""The inspector: what it sees of processes that have really crashed."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compilepool.wire.native_report import MAX_FRAMES, NativeReport, native_traceback
from tests.proc import PATIENCE_S, children, command_line, wait_until
from tests.zoo import CRASHES, Crash, Where
from tests.zoo.victims import (
    NEEDS,
    Victim,
    crashed,
    functions,
    inspect,
    inspector,
    read_report,
    victim,
)

pytestmark = NEEDS


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.name)
def test_the_crash_stands_first(zoo: str, crash: Crash) -> None:
    with crashed(zoo, crash.symbol, crash.where) as process:
        report = inspect(process, "crash")
    assert report.missing == []
    thread = report.threads[0]
    assert thread.is_crashed
    assert crash.function in functions(thread)[: crash.depth]
    assert report.crash is not None
    assert report.crash.tid == thread.tid
    assert report.crash.pc == thread.frames[0].pc
    assert report.crash.access == crash.access
    if crash.symbol != "overflow_stack":
        assert report.crash.address == crash.address
    assert (report.crash.trap is None) == (crash.signal == signal.SIGABRT)
    if crash.where in (Where.PTHREAD, Where.PTHREAD_WITH_GIL):
        assert thread.tid != process.pid
        assert "in_pthread" in functions(report.threads[1])


def test_a_deep_stack_is_cut(zoo: str) -> None:
    with crashed(zoo, "overflow_stack") as process:
        report = inspect(process, "crash")
    assert report.threads[0].is_cut
    assert len(report.threads[0].frames) == MAX_FRAMES


def test_a_jump_to_nowhere_shows_the_address_and_who_jumped(zoo: str) -> None:
    with crashed(zoo, "call_null_pointer") as process:
        report = inspect(process, "crash")
    assert report.crash is not None
    assert report.crash.library is None
    assert "#0 ?? (0x0, not mapped)\n  #1 call_null_pointer (libzoo.so+0x" in native_traceback(
        report
    )


def test_a_signal_that_was_sent_has_no_address(zoo: str) -> None:
    with crashed(zoo, "kill_itself") as process:
        report = inspect(process, "crash")
    assert report.crash is not None
    assert (report.crash.trap, report.crash.address, report.crash.access) == (None, None, None)
    assert "kill_itself" in functions(report.threads[0])[:2]


def test_two_threads_that_crash(zoo: str) -> None:
    code = f"import ctypes\nreport_crashes(out, park=True)\nlibrary = ctypes.CDLL({zoo!r})\n"
    crash = "library.in_two_pthreads(library.null_dereference, library.divide_by_zero)"
    with victim(code + crash) as process:
        assert process.hear()
        assert wait_until(lambda: process.sleepers() == 2)
        report = inspect(process, "crash")
    assert {functions(thread)[0] for thread in report.threads[:2]} == {
        "null_dereference",
        "divide_by_zero",
    }
    assert [thread.is_crashed for thread in report.threads] == [True, True, False]
    assert report.missing == []


def test_two_threads_that_crash_of_the_same_signal(zoo: str) -> None:
    code = (
        "report_crashes(out, park=True)\n"
        f"first = threading.Thread(target=zoo.call, args=({zoo!r}, 'null_dereference'))\n"
        "first.start(); os.read(0, 1)\n"
        f"zoo.call({zoo!r}, 'read_wild_pointer')"
    )
    with victim(code) as process:
        assert process.hear()
        assert wait_until(lambda: process.sleepers() == 1)
        process.tell(b".")
        assert wait_until(lambda: process.sleepers() == 2)
        report = inspect(process, "crash")
    first, second = report.threads
    assert first.is_crashed
    assert second.is_crashed
    assert functions(first)[0] == "null_dereference", "the first of them has the Python traceback"
    assert functions(second)[0] == "read_wild_pointer"
    assert second.tid == process.pid
    assert report.crash is not None
    assert report.crash.tid == first.tid


def stop_and_go_on(process: Victim) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    assert wait_until(lambda: process.state() == "T")
    os.kill(process.pid, signal.SIGCONT)
    assert wait_until(lambda: process.state() == "S")


def look(process: Victim) -> None:
    assert inspect(process, "live").missing == []


@pytest.mark.parametrize("disturb", [stop_and_go_on, look])
def test_a_thread_that_was_stopped_while_it_is_parked(
    zoo: str, disturb: Callable[[Victim], None]
) -> None:
    with crashed(zoo, "null_dereference") as process:
        assert wait_until(lambda: process.sleepers() == 1)
        disturb(process)
        assert wait_until(lambda: process.task(process.pid, "syscall").startswith("219 "))
        report = inspect(process, "crash")
    assert report.missing == []
    assert report.threads[0].is_crashed
    assert functions(report.threads[0])[0] == "null_dereference"


def test_the_crash_is_told_before_libdw_is_there(zoo: str, tmp_path: Path) -> None:
    libdw = tmp_path / "libdw"
    os.mkfifo(libdw)  # it is not loaded until somebody opens the other end
    with (
        crashed(zoo, "null_dereference") as process,
        inspector(process, "crash", 0, str(libdw)) as output,
    ):
        told = b""
        try:
            while told.count(b"\n") < 2:
                assert select.select([output], [], [], PATIENCE_S)[0]
                told += os.read(output, 64 * 1024)
        finally:
            libdw.open("wb").close()
        rest = read_report(output)
    report = NativeReport.of_lines(told)
    (thread,) = report.threads
    assert report.crash is not None
    assert (thread.is_crashed, thread.tid) == (True, report.crash.tid)
    assert [(frame.library, frame.pc) for frame in thread.frames] == [
        ("libzoo.so", report.crash.pc)
    ]
    assert "libdw cannot be used" in rest.missing[0]


def test_other_threads_are_left_out_when_the_time_is_up(zoo: str) -> None:
    code = (
        f"import ctypes\nctypes.CDLL({zoo!r}).start_waiting(10)\nos.write(out, b'.'); os.read(0, 1)"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        # It looks for a crash for longer than it has time for other threads.
        report = inspect(process, "crash")
    assert report.threads[0].tid == process.pid
    assert report.missing[1:] == [
        f"native stacks of {11 - len(report.threads)} more threads: the time was up"
    ]
    assert 1 < len(report.threads) < 11


def test_a_crash_of_the_inspector_leaves_no_core_file() -> None:
    with victim("os.write(out, b'.'); os.read(0, 1)") as process:
        assert process.hear() == b"."
        with inspector(process, "crash"):
            limits = Path(f"/proc/{pid_of('compilepool inspector')}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def exponential_name(arguments: int) -> str:
    """The mangled name of a function each argument of which has a name twice as long."""
    names = ["1BI1AS0_E", "S_IS1_S1_E"]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names += [f"S_IS{digits[i]}_S{digits[i]}_E" for i in range(2, arguments)]
    return "_Z1f" + "".join(names)


def test_a_name_that_would_take_all_memory_is_left_as_it_is() -> None:
    code = (
        "import re, resource, sys\n"
        "from compilepool.inspector.demangle import readable_name\n"
        "for name in sys.argv[1:]: print(readable_name(name.encode()))\n"
        # ru_maxrss would have the peak of this test's process, which it keeps across exec.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS) == eval(sys.stdin.read()))\n"
    )
    before = repr(resource.getrlimit(resource.RLIMIT_AS))
    bomb = exponential_name(24)
    command = [sys.executable, "-c", code, exponential_name(3), bomb]
    ended = subprocess.run(command, input=before, capture_output=True, text=True, check=True)
    small, large, peak, is_limit_as_before = ended.stdout.splitlines()
    assert (
        small == "f(B<A, A>, B<B<A, A>, B<A, A> >, B<B<B<A, A>, B<A, A> >, B<B<A, A>, B<A, A> > >)"
    )
    assert large == bomb
    assert int(peak) < 128 * 1024 * 1024
    assert is_limit_as_before == "True"


def test_a_crash_that_faulthandler_has_not_seen(zoo: str) -> None:
    code = (
        "from compilepool.linux.signals import handle_by_libc\n"
        "handle_by_libc(signal.SIGSEGV, 'sleep'); os.write(out, b'.')\n"
        f"zoo.call({zoo!r}, 'null_dereference')"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        report = inspect(process, "crash")
    assert report.threads[0].is_crashed
    assert functions(report.threads[0])[0] == "null_dereference"


def test_it_waits_for_a_crash_that_is_yet_to_come(zoo: str) -> None:
    code = (
        "report_crashes(out, park=True); os.write(out, b'.'); os.read(0, 1)\n"
        f"zoo.call({zoo!r}, 'null_dereference')"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        with inspector(process, "crash") as output:
            assert pid_of("compilepool inspector")
            process.tell(b".")
            report = read_report(output)
    assert functions(report.threads[0])[0] == "null_dereference"


def pid_of(title: str) -> int:
    """The pid of the child of this process that has a title, as soon as there is one."""

    def pids() -> list[int]:
        return [pid for pid in children(os.getpid()) if command_line(pid) == title]

    assert wait_until(lambda: bool(pids()))
    return pids()[0]
