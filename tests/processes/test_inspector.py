"""The inspector: what it sees of what hangs, and where something is forbidden or missing."""

from __future__ import annotations

import ctypes
import os
import signal

import pytest

from compilepool.inspector.stacks import MAX_THREADS
from compilepool.wire.native_report import Frame, NativeReport
from tests.proc import is_alive, wait_until
from tests.zoo import Where
from tests.zoo.victims import NO_PTRACE, crashed, functions, inspect, victim


def test_a_process_that_has_not_crashed_is_shown_as_it_is(zoo: str) -> None:
    with victim(f"os.write(out, b'.'); zoo.call({zoo!r}, 'read_byte')") as process:
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


def test_without_ptrace_the_crash_is_complete(zoo: str) -> None:
    with crashed(zoo, "null_dereference", Where.PTHREAD) as process:
        report = inspect(process, "crash", 0, None, *NO_PTRACE)
    assert functions(report.threads[0])[0] == "null_dereference"
    (missing,) = report.missing
    assert missing.startswith(
        "native stacks of the other threads: ptrace was refused (Operation not permitted):"
        " a seccomp filter"
    )
    assert "in_pthread" in functions(report.threads[1]), "it waits: no ptrace is needed for that"


def test_without_ptrace_running_threads_are_missing(zoo: str) -> None:
    with victim(f"os.write(out, b'.'); zoo.call({zoo!r}, 'spin')") as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.task(process.pid, "syscall") == "running\n")
        report = inspect(process, "live", 0, None, *NO_PTRACE)
    assert report.threads == []
    assert "a seccomp filter" in report.missing[0]


def test_a_debugger_is_named(zoo: str) -> None:
    libc = ctypes.CDLL(None)
    with crashed(zoo, "null_dereference", Where.PTHREAD) as process:
        seize = 0x4206  # <linux/ptrace.h>
        assert libc.ptrace(ctypes.c_long(seize), process.pid, None, None) == 0
        report = inspect(process, "crash")
        process.process.kill()
        assert wait_until(lambda: process.process.poll() is not None)
    assert report.threads[0].is_crashed
    assert f"process {os.getpid()} (a debugger?) traces it" in report.missing[0]


def test_without_libdw_the_place_is_known(zoo: str) -> None:
    with crashed(zoo, "null_dereference") as process:
        report = inspect(process, "crash", libdw="/nowhere/libdw.so")
    (missing,) = report.missing
    assert "libdw cannot be used (/nowhere/libdw.so: cannot open shared object file" in missing
    assert report.crash is not None
    (frame,) = report.threads[0].frames
    assert frame == Frame("??", "libzoo.so", report.crash.offset, report.crash.pc)


def test_a_hang_that_holds_the_gil(zoo: str) -> None:
    code = f"zoo.call({zoo!r}, 'spin', zoo.{Where.MAIN_THREAD_WITH_GIL})"
    with victim(code) as process:
        assert wait_until(lambda: functions(inspect(process, "live").threads[0])[0] == "spin")
        assert process.state() == "R"
        assert "TracerPid:\t0\n" in process.task(process.pid, "status")


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_waits_goes_on_waiting(zoo: str, is_stopped: bool) -> None:
    code = (
        f"import ctypes\nlibrary = ctypes.CDLL({zoo!r})\n"
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


def test_what_does_not_stop_is_read_as_it_stands(zoo: str) -> None:
    with victim(f"zoo.call({zoo!r}, 'wait_in_vfork')") as process:
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
def test_a_signal_that_would_do_harm_is_not_sent(zoo: str, code: str, reason: str) -> None:
    with victim(code + f"os.write(out, b'.'); zoo.call({zoo!r}, 'read_byte')") as process:
        assert process.hear() == b"."
        assert wait_until(lambda: process.state() == "S")
        report = inspect(process, "live", signal.SIGUSR1)
        assert is_alive(process.pid)
    assert reason in report.missing[0]
    assert "read_byte" in functions(report.threads[0])


def test_a_crowd_of_threads(zoo: str) -> None:
    code = (
        f"import ctypes\nctypes.CDLL({zoo!r}).start_waiting(100)\n"
        "os.write(out, b'.'); os.read(0, 1)"
    )
    with victim(code) as process:
        assert process.hear() == b"."
        report = inspect(process, "live")
    assert len(report.threads) == MAX_THREADS
    assert report.threads[0].tid == process.pid
    assert report.missing == [f"native stacks of {101 - MAX_THREADS} more threads"]
