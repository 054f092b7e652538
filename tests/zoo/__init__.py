"""A library with ways to crash and to hang, and how to call them."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import signal
import subprocess
import threading
from pathlib import Path

_SOURCE = Path(__file__).with_name("zoo.cpp")


class Where(enum.Enum):
    """The thread that a function of the zoo is called in."""

    MAIN_THREAD = "main thread"
    MAIN_THREAD_WITH_GIL = "main thread, which holds the GIL"
    PYTHON_THREAD = "Python thread"
    PTHREAD_WITH_GIL = "pthread, while its creator holds the GIL"
    PTHREAD = "pthread, without the GIL"


@dataclasses.dataclass(frozen=True)
class Crash:
    """One way to crash.

    Attributes:
        symbol: the function that is called.
        signal: what it dies of.
        where: the thread.
        function: what the stack shows, among the first `depth` frames.
        address: what is accessed, if that can be known.
        access: how.
    """

    symbol: str
    signal: signal.Signals
    where: Where = Where.MAIN_THREAD
    function: str = ""
    depth: int = 3
    address: int | None = None
    access: str | None = None

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.symbol}-{self.where.name.lower()}"


_NULL = Crash(
    "null_dereference",
    signal.SIGSEGV,
    function="null_dereference",
    depth=1,
    address=0,
    access="write",
)

CRASHES = (
    *(dataclasses.replace(_NULL, where=where) for where in Where),
    Crash(
        "read_wild_pointer",
        signal.SIGSEGV,
        function="read_wild_pointer",
        depth=1,
        address=0xDEAD000BEEF,
        access="read",
    ),
    Crash("read_non_canonical", signal.SIGSEGV, function="read_non_canonical", depth=1),
    Crash(
        "call_null_pointer",
        signal.SIGSEGV,
        function="call_null_pointer",
        depth=2,
        address=0,
        access="execute",
    ),
    Crash(
        "crash_in_template",
        signal.SIGSEGV,
        function="void zoo::write_through<int>(int*)",
        depth=1,
        address=0,
        access="write",
    ),
    # libc's own functions come first: abort, malloc_printerr, __cxa_throw.
    Crash("call_abort", signal.SIGABRT, function="call_abort", depth=6),
    Crash("call_abort", signal.SIGABRT, Where.PTHREAD, function="call_abort", depth=6),
    Crash("double_free", signal.SIGABRT, function="double_free", depth=12),
    Crash("throw_uncaught", signal.SIGABRT, function="throw_uncaught", depth=12),
    Crash("illegal_instruction", signal.SIGILL, function="illegal_instruction", depth=1),
    Crash("divide_by_zero", signal.SIGFPE, function="divide_by_zero", depth=1),
    Crash("overflow_stack", signal.SIGSEGV, function="overflow_stack", depth=1, access="write"),
    Crash(
        "overflow_stack",
        signal.SIGSEGV,
        Where.PYTHON_THREAD,
        function="overflow_stack",
        depth=1,
        access="write",
    ),
)
"""Not among them: a stack overflow in a pthread, which has no stack to run a handler on."""

HANGS = ("spin", "deadlock")


def build(folder: Path) -> Path:
    """Compile the zoo into a folder; returns the library.

    Raises:
        subprocess.CalledProcessError: the compiler failed.
        FileNotFoundError: there is no g++.
    """
    library = folder / "libzoo.so"
    flags = ("-O1", "-g0", "-fPIC", "-shared", "-pthread", "-fno-optimize-sibling-calls")
    quiet = ("-Wno-infinite-recursion", "-Wno-use-after-free")
    subprocess.run(["g++", *flags, *quiet, "-o", library, _SOURCE], check=True)
    return library


def call(library: str, symbol: str, where: Where = Where.MAIN_THREAD) -> None:
    """Call a function of the zoo; returns if that does."""
    function = getattr(ctypes.CDLL(library), symbol)
    holding_gil = ctypes.PyDLL(library)
    match where:
        case Where.MAIN_THREAD:
            function(0)
        case Where.MAIN_THREAD_WITH_GIL:
            getattr(holding_gil, symbol)(0)
        case Where.PYTHON_THREAD:
            thread = threading.Thread(target=function, args=(0,))
            thread.start()
            thread.join()
        case Where.PTHREAD:
            ctypes.CDLL(library).in_pthread(function)
        case Where.PTHREAD_WITH_GIL:
            holding_gil.in_pthread(function)
