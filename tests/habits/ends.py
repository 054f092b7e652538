"""How a program ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit, stop_timers

TRACEBACK = (
    r"Traceback \(most recent call last\):|  .*|During handling of the above.*|"
    "a callback of a future raised|"
)


@kit_habit("end", statuses=(0,))
def returns(kit: Kit) -> None:
    pass


@kit_habit("end", statuses=(3,))
def calls_exit(kit: Kit) -> None:
    sys.exit(3)


@kit_habit("end", statuses=(1,), says=(TRACEBACK, "LookupError: mine"))
def raises(kit: Kit) -> None:
    raise LookupError("mine")


# Its status is 1 if something is evaluated at exit (CPython's run_eval_code_obj), as by an import.
INTERRUPTED = (-signal.SIGINT, 130, 1)


@kit_habit(
    "end", statuses=INTERRUPTED, says=(TRACEBACK, "KeyboardInterrupt:?.*", "Exception ignored in.*")
)
def raises_interrupt(kit: Kit) -> None:
    raise KeyboardInterrupt


@kit_habit(
    "end",
    statuses=(*INTERRUPTED, 0),
    says=(TRACEBACK, "KeyboardInterrupt:?.*", "Exception ignored in.*"),
)
def interrupts_itself(kit: Kit) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@kit_habit(
    "end",
    statuses=(*INTERRUPTED, 0),
    says=(TRACEBACK, "KeyboardInterrupt:?.*", "Exception ignored in.*"),
)
def is_interrupted_later(kit: Kit) -> None:
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    kit.kept.append(timer)


@kit_habit("end", statuses=(4,), is_deaf=True)
def exits_at_once(kit: Kit) -> None:
    os._exit(4)


@kit_habit("end", statuses=(4,), is_deaf=True)
def exits_at_once_in_a_thread(kit: Kit) -> None:
    threading.Thread(target=os._exit, args=(4,)).start()
    threading.Event().wait()


@kit_habit("end", statuses=(-signal.SIGTERM,), is_deaf=True)
def is_terminated(kit: Kit) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


@kit_habit("end", statuses=(7,))
def exits_when_terminated(kit: Kit) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


@kit_habit("end", statuses=(-signal.SIGKILL,), is_deaf=True)
def is_killed(kit: Kit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@kit_habit(
    "end",
    statuses=(-signal.SIGABRT,),
    is_deaf=True,
    says=(
        "Fatal Python error: Aborted",
        "Thread 0x.*|Current thread 0x.*|  .*|Extension modules.*",
        "",
    ),
)
def aborts(kit: Kit) -> None:
    os.abort()


@kit_habit("end", statuses=(0,), is_deaf=True)
def becomes_another_program(kit: Kit) -> None:
    stop_timers()
    os.execv("/bin/true", ["true"])


@kit_habit("end", statuses=(0,), is_deaf=True)
def becomes_itself_again(kit: Kit) -> None:
    stop_timers()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    code = (
        "from compilepool import CompilePool as P; p = P(1); assert p.submit(abs, -1).result() == 1"
    )
    os.execv(kit.executable, [kit.executable, "-c", code])


@kit_habit("end", statuses=(0,))
def stops_for_a_while(kit: Kit) -> None:
    """As Ctrl-Z does, and `fg`."""
    program = os.getpid()  # not `getppid` in the child: the program may have ended by then
    if os.fork() == 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGSTOP)
            threading.Event().wait(0.3)
            os.kill(program, signal.SIGCONT)
        os._exit(0)
