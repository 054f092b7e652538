"""The parser of faulthandler's text: on faulthandler's own output, and on any other."""

from __future__ import annotations

import faulthandler
import signal
import string
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compilepool.wire.python_stack import (
    PythonFrame,
    PythonThread,
    crash_begins,
    crash_text,
    fatal_signal,
    is_crash,
    last_crash,
    tells_of_crash,
    threads_of,
)

HEADS = {
    "Segmentation fault": signal.SIGSEGV,
    "Bus error": signal.SIGBUS,
    "Aborted": signal.SIGABRT,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
CRASH = "Fatal Python error"


def frame(file: str, line: int, function: str) -> PythonFrame:
    return PythonFrame(f'File "{file}", line {line} in {function}', file, line, function)


# faulthandler escapes what is not printable ASCII, `_Py_DumpASCII` in CPython's traceback.c.
names = st.text(string.ascii_letters + string.digits + "_<>./ \"'\\", min_size=1, max_size=30).map(
    lambda name: name.strip() or "f"
)
frames = st.builds(frame, names, st.integers(0, 10**9 - 1), names) | st.sampled_from(
    [PythonFrame("..."), PythonFrame("<no Python frame>"), PythonFrame("Garbage-collecting")]
)
threads = st.builds(PythonThread, st.just(False), st.lists(frames, min_size=1, max_size=5))
texts = st.text() | st.lists(
    st.sampled_from(
        [*CRASH, CRASH, ": Aborted", "\n", "\n\n", "Current thread 0x", "Thread 0x", '  File "']
    )
).map("".join)


def written(stacks: list[PythonThread]) -> str:
    """The stacks as `_Py_DumpTracebackThreads` writes them."""
    blocks = []
    for number, thread in enumerate(stacks):
        head = "Current thread" if thread.is_current else "Thread"
        lines = [f"  {each.text}\n" for each in thread.frames]
        blocks.append(f"{head} 0x{number:016x} (most recent call first):\n{''.join(lines)}")
    return "\n".join(blocks)


def with_current(stacks: list[PythonThread], index: int) -> list[PythonThread]:
    return [each._replace(is_current=at == index) for at, each in enumerate(stacks)]


@given(st.lists(threads, max_size=4), st.integers(0, 9))
def test_what_is_written_is_what_is_read(stacks: list[PythonThread], current: int) -> None:
    expected = with_current(stacks, current)
    assert threads_of(written(expected)) == expected


@given(
    st.sampled_from(sorted(HEADS)), st.lists(threads, max_size=4), st.integers(0, 9), st.booleans()
)
def test_a_crash_behind_other_stacks_is_found_and_has_its_own_thread_first(
    head: str, stacks: list[PythonThread], current: int, has_modules: bool
) -> None:
    expected = with_current(stacks, current)
    before = written(stacks)
    crash = f"{CRASH}: {head}\n\n{written(expected)}"
    if has_modules:
        crash += "\nExtension modules: numpy (total: 1)\n"
    data = (before + crash).encode()
    assert tells_of_crash(data)
    assert fatal_signal(data) is HEADS[head]
    assert crash_begins(data) == len(before)
    text = crash_text(data)
    assert is_crash(text)
    assert threads_of(text) == sorted(expected, key=lambda thread: not thread.is_current)
    assert sorted(text.split()) == sorted(crash.split())  # nothing is lost
    assert last_crash(before + crash) == crash


@given(texts)
@example(f'Thread 0x1\n  File "a", line {"9" * 5000} in f')
def test_any_text_survives(text: str) -> None:
    for thread in threads_of(text):
        assert all(each.text in text for each in thread.frames)
    assert is_crash(last_crash(text)) == (CRASH in text)
    assert text.endswith(last_crash(text))


@given(texts.map(str.encode) | st.binary())
@example(b"Thread 0x1\nFatal Pyth")
@example(b"Fatal Fatal Python erro")
def test_in_any_bytes_a_crash_is_found_as_soon_as_it_begins(data: bytes) -> None:
    head = CRASH.encode()
    for size in range(len(data) + 1):
        part = data[:size]
        assert tells_of_crash(part) == is_crash(crash_text(part))
        assert (fatal_signal(part) is None) or tells_of_crash(part)
        at = crash_begins(part)
        assert head not in part[:at]
        assert part[at:][: len(head)] == head[: len(part) - at]
        assert not tells_of_crash(data) or at <= data.index(head)


def test_the_last_of_several_crashes_is_told() -> None:
    text = "x\nFatal Python error: one\nFatal Python error: two\n  File a"
    assert last_crash(text) == "Fatal Python error: two\n  File a"
    assert last_crash("nothing") == ""


def test_the_stacks_that_faulthandler_writes_are_read() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        end.set()
        other.join()
        file.seek(0)
        young, *_, main = threads_of(file.read().decode())
    assert (young.is_current, main.is_current) == (False, True)
    assert any(each.function == "wait" for each in young.frames)
    assert main.frames[0].file == __file__
    assert main.frames[0].function == "test_the_stacks_that_faulthandler_writes_are_read"
    assert main.frames[0].line > 0


@pytest.mark.parametrize("number", sorted(set(HEADS.values())), ids=lambda each: each.name)
def test_each_crash_that_faulthandler_tells_of_is_read(number: signal.Signals) -> None:
    code = f"import faulthandler, signal; faulthandler.enable(); signal.raise_signal({number:d})"
    run = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert run.returncode == -number
    assert fatal_signal(run.stderr) is number
    (thread,) = threads_of(crash_text(run.stderr))
    assert thread.is_current
    assert [(each.file, each.line, each.function) for each in thread.frames] == [
        ("<string>", 1, "<module>")
    ]
