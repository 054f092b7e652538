"""The inspector: what it sees of processes that have really crashed, or really hang."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compilepool.client.session.configuration import find_libdw
from compilepool.inspector.report_writer import MAX_REPORT, ReportWriter
from compilepool.inspector.stacks import MAX_THREADS
from compilepool.wire.native_report import (
    MAX_FRAMES,
    Frame,
    NativeReport,
    ThreadStack,
    native_traceback,
)
from tests import zoo
from tests.processes import PATIENCE_S, children, command_line, is_alive, wait_until
from tests.zoo import CRASHES, Crash, Where
from tests.zoo.victims import (
    NO_PTRACE,
    Victim,
    crashed,
    functions,
    inspect,
    inspector,
    read_report,
    victim,
)


def has_libdw() -> bool:
    try:
        ctypes.CDLL(find_libdw())
    except OSError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="native stacks need x86-64"),
    pytest.mark.skipif(not shutil.which("g++"), reason="the zoo needs g++"),
    pytest.mark.skipif(not has_libdw(), reason="native stacks need libdw: pip install pystack"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(zoo.build(tmp_path_factory.mktemp("zoo")))


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.name)
def test_the_crash_stands_first(library: str, crash: Crash) -> None:
    with crashed(library, crash.symbol, crash.where) as process:
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


def test_a_deep_stack_is_cut(library: str) -> None:
    with crashed(library, "overflow_stack") as process:
        report = inspect(process, "crash")
    assert report.threads[0].is_cut
    assert len(report.threads[0].frames) == MAX_FRAMES


def test_a_jump_to_nowhere_shows_the_address_and_who_jumped(library: str) -> None:
    with crashed(library, "call_null_pointer") as process:
        report = inspect(process, "crash")
    assert report.crash is not None
    assert report.crash.library is None
    assert "#0 ?? (0x0, not mapped)\n  #1 call_null_pointer (libzoo.so+0x" in native_traceback(
        report
    )


def test_a_signal_that_was_sent_has_no_address(library: str) -> None:
    with crashed(library, "kill_itself") as process:
        report = inspect(process, "crash")
    assert report.crash is not None
    assert (report.crash.trap, report.crash.address, report.crash.access) == (None, None, None)
    assert "kill_itself" in functions(report.threads[0])[:2]


def test_two_threads_that_crash(library: str) -> None:
    code = f"import ctypes\nreport_crashes(out, park=True)\nlibrary = ctypes.CDLL({library!r})\n"
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


def test_two_threads_that_crash_of_the_same_signal(library: str) -> None:
    code = (
        "report_crashes(out, park=True)\n"
        f"first = threading.Thread(target=zoo.call, args=({library!r}, 'null_dereference'))\n"
        "first.start(); os.read(0, 1)\n"
        f"zoo.call({library!r}, 'read_wild_pointer')"
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
    library: str, disturb: Callable[[Victim], None]
) -> None:
    with crashed(library, "null_dereference") as process:
        assert wait_until(lambda: process.sleepers() == 1)
        disturb(process)
        assert wait_until(lambda: process.task(process.pid, "syscall").startswith("219 "))
        report = inspect(process, "crash")
    assert report.missing == []
    assert report.threads[0].is_crashed
    assert functions(report.threads[0])[0] == "null_dereference"


def test_the_crash_is_told_before_libdw_is_there(library: str, tmp_path: Path) -> None:
    libdw = tmp_path / "libdw"
    os.mkfifo(libdw)  # it is not loaded until somebody opens the other end
    with (
        crashed(library, "null_dereference") as process,
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


def test_other_threads_are_left_out_when_the_time_is_up(library: str) -> None:
    code = (
        f"import ctypes\nctypes.CDLL({library!r}).start_waiting(10)\n"
        "os.write(out, b'.'); os.read(0, 1)"
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


def test_a_crash_that_faulthandler_has_not_seen(library: str) -> None:
    code = (
        "from compilepool.linux.signals import handle_by_libc\n"
        "handle_by_libc(signal.SIGSEGV, 'sleep'); os.write(out, b'.')\n"
        f"zoo.call({library!r}, 'null_dereference')"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        report = inspect(process, "crash")
    assert report.threads[0].is_crashed
    assert functions(report.threads[0])[0] == "null_dereference"


def test_it_waits_for_a_crash_that_is_yet_to_come(library: str) -> None:
    code = (
        "report_crashes(out, park=True); os.write(out, b'.'); os.read(0, 1)\n"
        f"zoo.call({library!r}, 'null_dereference')"
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


def test_a_process_that_has_not_crashed_is_shown_as_it_is(library: str) -> None:
    with victim(f"os.write(out, b'.'); zoo.call({library!r}, 'read_byte')") as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.state() == "S")
        report = inspect(process, "crash")
    assert report.crash is None
    assert report.missing == ["the crash: no thread was found in a crash within 1 s"]
    assert "read_byte" in functions(report.threads[0])


@pytest.mark.parametrize("mode", ["crash", "live"])
def test_a_dead_process(mode: str) -> None:
    with victim("") as process:
        process.process.wait()
        report = inspect(process, mode, signal.SIGUSR1)
    assert report == NativeReport(
        None, [], ["everything: the process was dead before anybody looked at it"], []
    )


def test_without_ptrace_the_crash_is_complete(library: str) -> None:
    with crashed(library, "null_dereference", Where.PTHREAD) as process:
        report = inspect(process, "crash", 0, None, *NO_PTRACE)
    assert functions(report.threads[0])[0] == "null_dereference"
    (missing,) = report.missing
    assert missing.startswith(
        "native stacks of the other threads: ptrace was refused (Operation not permitted):"
        " a seccomp filter"
    )
    assert "in_pthread" in functions(report.threads[1]), "it waits: no ptrace is needed for that"


def test_without_ptrace_running_threads_are_missing(library: str) -> None:
    with victim(f"os.write(out, b'.'); zoo.call({library!r}, 'spin')") as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.task(process.pid, "syscall") == "running\n")
        report = inspect(process, "live", 0, None, *NO_PTRACE)
    assert report.threads == []
    assert "a seccomp filter" in report.missing[0]


def test_a_debugger_is_named(library: str) -> None:
    libc = ctypes.CDLL(None)
    with crashed(library, "null_dereference", Where.PTHREAD) as process:
        seize = 0x4206  # <linux/ptrace.h>
        assert libc.ptrace(ctypes.c_long(seize), process.pid, None, None) == 0
        report = inspect(process, "crash")
        process.process.kill()
        assert wait_until(lambda: process.process.poll() is not None)
    assert report.threads[0].is_crashed
    assert f"process {os.getpid()} (a debugger?) traces it" in report.missing[0]


def test_without_libdw_the_place_is_known(library: str) -> None:
    with crashed(library, "null_dereference") as process:
        report = inspect(process, "crash", libdw="/nowhere/libdw.so")
    (missing,) = report.missing
    assert "libdw cannot be used (/nowhere/libdw.so: cannot open shared object file" in missing
    assert report.crash is not None
    (frame,) = report.threads[0].frames
    assert frame == Frame("??", "libzoo.so", report.crash.offset, report.crash.pc)


def test_a_hang_that_holds_the_gil(library: str) -> None:
    code = f"zoo.call({library!r}, 'spin', zoo.{Where.MAIN_THREAD_WITH_GIL})"
    with victim(code) as process:
        assert wait_until(lambda: functions(inspect(process, "live").threads[0])[0] == "spin")
        assert process.state() == "R"
        assert "TracerPid:\t0\n" in process.task(process.pid, "status")


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_waits_goes_on_waiting(library: str, is_stopped: bool) -> None:
    code = (
        f"import ctypes\nlibrary = ctypes.CDLL({library!r})\n"
        "sleeper = subprocess.Popen(['sleep', '1000'])\n"
        "threading.Thread(target=library.sleep_long).start()\n"
        "os.write(out, b'.')\n"
        "os.write(out, b'%d' % library.read_byte(0))\n"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.sleepers() == 1)
        assert wait_until(lambda: process.state() == "S")
        if is_stopped:
            os.kill(process.pid, signal.SIGSTOP)
            assert wait_until(lambda: process.state() == "T")
        report = inspect(process, "live")
        assert process.state() == ("T" if is_stopped else "S")
        os.kill(process.pid, signal.SIGCONT)
        process.tell(b".")
        assert process.hear() == b"1"
        assert wait_until(lambda: process.sleepers() == 1)
    assert report.missing == []
    main, sleeper = report.threads
    assert main.tid == process.pid
    assert main.state == ("T" if is_stopped else "S")
    assert "read_byte" in functions(main)
    assert "sleep_long" in functions(sleeper)
    (child,) = report.children
    assert (child.command, child.parent_pid, child.state) == ("sleep 1000", process.pid, "S")
    assert 0 <= child.cpu_s <= child.age_s < 1000


def test_what_does_not_stop_is_read_as_it_stands(library: str) -> None:
    with victim(f"zoo.call({library!r}, 'wait_in_vfork')") as process:
        assert wait_until(lambda: process.state() == "D")
        report = inspect(process, "live")
        assert "TracerPid:\t0\n" in process.task(process.pid, "status")
    (thread,) = report.threads
    assert thread.state == "D"
    assert "wait_in_vfork" in functions(thread)
    assert report.missing == [
        f"native stack of thread {process.pid}, maybe in part: it did not stop within 10 ms"
    ]


def test_the_python_stack_is_asked_for() -> None:
    code = (
        "faulthandler.register(signal.SIGUSR1, file=out)\n"
        "def waits():\n"
        "    os.write(out, b'.'); os.read(0, 1)\n"
        "waits()"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        report = inspect(process, "live", signal.SIGUSR1)
        assert b"in waits" in process.hear()
    assert report.missing == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "nothing catches that any more"),
        (
            "faulthandler.register(signal.SIGUSR1, file=out)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n",
            "all threads have blocked that",
        ),
    ],
)
def test_a_signal_that_would_do_harm_is_not_sent(library: str, code: str, reason: str) -> None:
    with victim(code + f"os.write(out, b'.'); zoo.call({library!r}, 'read_byte')") as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.state() == "S")
        report = inspect(process, "live", signal.SIGUSR1)
        assert is_alive(process.pid)
    assert reason in report.missing[0]
    assert "read_byte" in functions(report.threads[0])


def test_a_crowd_of_threads(library: str) -> None:
    code = (
        f"import ctypes\nctypes.CDLL({library!r}).start_waiting(100)\n"
        "os.write(out, b'.'); os.read(0, 1)"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        report = inspect(process, "live")
    assert len(report.threads) == MAX_THREADS
    assert report.threads[0].tid == process.pid
    assert report.missing == [f"native stacks of {101 - MAX_THREADS} more threads"]


def test_a_report_has_a_limit(tmp_path: Path) -> None:
    frames = [Frame("f" * 300, "lib.so", 1, 2)] * MAX_FRAMES
    with open(tmp_path / "report", "w+b") as file:
        writer = ReportWriter(file.fileno())
        for tid in range(MAX_THREADS):
            writer.write(ThreadStack(tid, "thread", "S", False, frames, False))
        writer.close()
        file.seek(0)
        data = file.read()
    assert len(data) <= MAX_REPORT
    report = NativeReport.of_lines(data)
    left_out = MAX_THREADS - len(report.threads)
    assert 0 < left_out < MAX_THREADS
    assert report.missing == [f"{left_out} threads or children: the report is full"]
