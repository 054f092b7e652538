"""How a program with a pool ends: at its end, by an exception, by Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.proc import PATIENCE_S
from tests.programs.running import Doomed, Program, family_of

START_METHODS = ["fork", "spawn"]


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    ("way", "code", "last_words"),
    [
        ("end", 0, ""),
        ("end without futures", 0, ""),
        ("sys.exit in the block", 3, ""),
        ("sys.exit in another block", 3, ""),
        ("exception", 1, "LookupError: mine\n"),
        ("os._exit", 3, ""),
    ],
)
def test_a_program_that_ends_does_not_wait_for_jobs_and_leaves_nothing(
    start_method: str, way: str, code: int, last_words: str
) -> None:
    with Program("exits.py", way, start_method) as program:
        assert program.read_line() == "ready"
        with Doomed(family_of(program.pid)) as family:
            assert len(family) >= 5
            program.write("\n")
            assert program.wait() == code
            assert family.wait()
            assert not family.alive()
        stderr = program.stderr()
        assert stderr.endswith(last_words)
        assert stderr.count("Traceback") == (1 if last_words else 0)
        assert bool(stderr) == bool(last_words)
        assert program.rest() == ""


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("state", ["busy", "starting"])
def test_ctrl_c_in_a_terminal_shows_one_traceback_and_leaves_nothing(
    start_method: str, state: str
) -> None:
    with Program("terminal.py", start_method, state, is_in_terminal=True) as program:
        if state == "busy":
            assert [program.read_line() for _ in range(2)] == ["ready", "ready"]
        else:
            assert program.read_line() == "starting"
        with Doomed(family_of(program.pid)) as family:
            program.write("\x03")
            shown = program.rest()  # all of it: nobody has the terminal open any more
            assert family.wait()
        assert program.wait() == -signal.SIGINT
        if state == "starting":
            shown = shown.replace("ready\r\n", "")  # of a job that was quicker than the key
        # The terminal's echo of the key, and one traceback without another within it.
        assert re.fullmatch(
            r"\^C(\r\n)?Traceback \(most recent call last\):\r\n(  .*\r\n)+KeyboardInterrupt\r\n",
            shown,
        ), shown


def test_a_pool_that_is_torn_down_waits_for_no_thread_that_is_gone() -> None:
    code = """
import atexit, sys, threading, types
from compilepool import CompilePool
pool = CompilePool(1)
holder = sys.modules["holder"] = types.ModuleType("holder")  # torn down before weakref is
holder.pool = pool
session = pool._session
del pool
atexit._clear()  # some programs do, and then weakref's own guard is gone
has_lock = threading.Event()
def work():
    with session._calls.lock:  # as the pool's reader has it at times
        has_lock.set()
        threading.Event().wait()
threading.Thread(target=work, daemon=True).start()
has_lock.wait()
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_all_futures_have_ended_when_the_program_exits_though_callbacks_are_slow() -> None:
    code = """
import atexit, signal, time
futures = []
atexit.register(lambda: print([future.done() for future in futures]))
from compilepool import CompilePool
pools = [CompilePool(1), CompilePool(1)]
# While the end of the first one is waited for, the second one's supervisor is gone.
for pool, delay in zip(pools, (0.15, 0.4)):
    futures += [pool.submit(signal.pause) for _ in range(2)]
    futures[-2].add_done_callback(lambda _, delay=delay: time.sleep(delay))
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (result.stdout, result.stderr) == ("[True, True, True, True]\n", "")
