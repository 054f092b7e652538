"""What programs do with signals."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import threading
from concurrent.futures import wait
from types import FrameType

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit, Tick, stop_timers


def reap_all(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@kit_habit("early", group="SIGCHLD")
def reaps_all_children(kit: Kit) -> None:
    signal.signal(signal.SIGCHLD, reap_all)


@kit_habit("started", group="SIGCHLD")
def reaps_all_children_from_now_on(kit: Kit) -> None:
    signal.signal(signal.SIGCHLD, reap_all)


@kit_habit("early", group="SIGCHLD")
def ignores_children(kit: Kit) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


@kit_habit("early")
def blocks_all_signals(kit: Kit) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@kit_habit("early")
def ignores_interrupts(kit: Kit) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@kit_habit("early")
def dies_of_broken_pipes(kit: Kit) -> None:
    """As programs of the shell do: the default, which Python changes."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@kit_habit(
    "early",
    says=(
        "Exception ignored when trying to write to the signal.*",
        "OSError: .*",
        r"Traceback.*|  .*|",
    ),
)
def has_a_wakeup_descriptor(kit: Kit) -> None:
    _, theirs = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)


@kit_habit("early")
def enables_faulthandler(kit: Kit) -> None:
    faulthandler.enable(file=kit.open("faults"))
    faulthandler.register(signal.SIGUSR2, file=kit.open("faults"))


@kit_habit("early", group="SIGALRM")
def has_a_timer(kit: Kit) -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    atexit.register(stop_timers)


@kit_habit("early")
def has_a_profiling_timer(kit: Kit) -> None:
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 0.002, 0.002)
    atexit.register(stop_timers)


@kit_habit(
    "busy",
    group="SIGALRM",
    loses=True,
    allows=("SerializationError",),
    says=(
        "--- Logging error ---|Call stack:|Message: .*|Arguments: .*|During handling.*|  .*|",
        r"Traceback.*|.*Tick|exception calling callback.*|a callback of a future raised",
    ),
)
def is_interrupted_by_a_timer(kit: Kit) -> None:
    """The handler raises, whatever the program is doing."""

    def raise_tick(_: int, __: FrameType | None) -> None:
        if is_armed:
            raise Tick

    most = len(kit.futures) + 300
    is_armed = True
    kit.cancel_endless()
    signal.signal(signal.SIGALRM, raise_tick)
    ticks = 0
    while ticks < 30 and is_armed:
        try:
            signal.setitimer(signal.ITIMER_REAL, kit.chance("ticks").uniform(0.0001, 0.004))
            while (future := kit.submit("adds", "ticks")) is not None:
                wait([future], 10)
                if len(kit.futures) > most:
                    is_armed = False
                    break
            # The tick came while the call was pickled, or is still to come.
            signal.setitimer(signal.ITIMER_REAL, 0)
            ticks += 1
        except Tick:
            ticks += 1
        except Exception as error:  # noqa: BLE001 - it is reported
            is_armed = False
            kit.fault(f"{type(error).__name__} with a timer: {error}")
    is_armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)


@kit_habit("busy", group="SIGALRM", allows=("PoolClosed",))
def submits_in_a_handler(kit: Kit) -> None:
    left = 20

    def submit(_: int, __: FrameType | None) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            kit.submit("adds", "handler")
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)

    atexit.register(stop_timers)
    signal.signal(signal.SIGALRM, submit)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    for _ in range(10):
        kit.submit("adds", "handler")


@kit_habit("busy", group="SIGALRM")
def waits_in_a_handler(kit: Kit) -> None:
    def submit_and_wait(_: int, __: FrameType | None) -> None:
        future = kit.submit("adds", "handler")
        if future is not None:
            wait([future], 30)

    kit.cancel_endless()
    signal.signal(signal.SIGALRM, submit_and_wait)
    for _ in range(5):
        signal.raise_signal(signal.SIGALRM)


@kit_habit("busy")
def is_signalled_again_and_again(kit: Kit) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)

    def storm() -> None:
        for _ in range(300):
            os.kill(os.getpid(), signal.SIGUSR1)
            threading.Event().wait(0.0005)

    thread = threading.Thread(target=storm)
    thread.start()
    kit.at_last.append(thread.join)


@kit_habit("busy")
def is_stopped_for_a_while(kit: Kit) -> None:
    _stop_and_continue(os.getpid(), 0.2)


@kit_habit("busy")
def catches_an_interrupt(kit: Kit) -> None:
    """Ctrl-C while it waits, and it goes on."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.01, signal.raise_signal, (signal.SIGINT,)).start()
        for future in list(kit.futures.values()):
            future.exception(0.05)
        threading.Event().wait(0.2)
    except (KeyboardInterrupt, TimeoutError):
        pass
    except BaseException as error:  # noqa: BLE001 - of cancelled futures
        kit.kept.append(error)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait(0.1)
    signal.signal(signal.SIGINT, old)


@kit_habit("busy", says=(r"Traceback \(most recent call last\):|  .*|KeyboardInterrupt",))
def interrupts_its_group(kit: Kit) -> None:
    """What Ctrl-C in a terminal does to all of a program's group, which the pool is not in."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.killpg(os.getpgid(0), signal.SIGINT)
    signal.signal(signal.SIGINT, old)


def _stop_and_continue(pid: int, seconds: float) -> None:
    child = os.fork()
    if child == 0:
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(seconds)
        os.kill(pid, signal.SIGCONT)
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
