"""The words of an error whose worker has died: they fit a screen, and say what is known."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import compilepool
from compilepool import JobDump, JobTimeout, MemoryLimitExceeded, PreloadFailed, WorkerCrashed
from compilepool.client.reports.crash import failure_text
from compilepool.client.reports.errors import error_of, place_of, report_text
from compilepool.text import printable
from compilepool.wire.failure import Cause, Failure, ProcessMemory
from compilepool.wire.native_report import ChildProcess, CrashSite, Frame, ThreadStack, to_line

LINES = 24
COLUMNS = 120
SITE = CrashSite(1, "python", 0x40, 0, "read", 14, "libzoo.so", 0x1139)
ABORT = (
    Frame("abort", "libc.so.6", 0x26472, 1),
    Frame("llvm::report_fatal_error(llvm::Twine const&, bool)", "libtriton.so", 0xA87, 2),
    *(Frame(f"llvm::lower{'X' * 90}", "libtriton.so", number, 3) for number in range(40)),
)
FOREIGN = "Fatal Python error: Aborted\n\nThread 0x01 (most recent call first):\n" + "".join(
    f'  File "/a/{"folder/" * 30}f.py", line {number} in f\n' for number in range(9)
)
OWN = (
    "Fatal Python error: Aborted\n\n"
    'Current thread 0x02 (most recent call first):\n  File "/a/kernel.py", line 7 in compile\n\n'
    'Thread 0x01 (most recent call first):\n  File "/a/other.py", line 3 in wait\n\n'
    "Extension modules: numpy (total: 1)\n"
)
ADVICE = f"native stacks of the other threads: refused; {'allow it ' * 12}with sysctl-xyz"
UNKEPT = (
    "its crash folder could not be written: PermissionError: [Errno 13] others could write to the"
    " folder for crashes; `chmod go-w` it, or set COMPILEPOOL_CRASH_DIR to one of your own: '/x'"
)


def stack(*frames: Frame, tid: int = 1, is_crashed: bool = True) -> ThreadStack:
    return ThreadStack(tid, "python", "S", is_crashed, list(frames), False)


def native(*parts: CrashSite | ThreadStack | ChildProcess | str) -> str:
    return b"".join(map(to_line, parts)).decode()


def first_words(text: str) -> str:
    """The sentence that a message begins with, in one line."""
    lines = text.split("\n")
    return " ".join(line.strip() for line in lines if line[2:3] == " " or line[:1] != " ")


texts = st.text(max_size=300) | st.sampled_from(["", FOREIGN, OWN, "a\n" * 99])
parts = st.lists(
    st.builds(
        lambda name, count, is_crashed: stack(
            *[Frame(name, name or None, 1, 2)] * count, is_crashed=is_crashed
        ),
        st.text(max_size=200),
        st.integers(0, 64),
        st.booleans(),
    )
    | st.text(max_size=300)
    | st.just(SITE),
    max_size=8,
)
failures = st.builds(
    Failure,
    st.sampled_from(Cause),
    st.none() | st.integers(-64, 255),
    st.text(max_size=200),
    texts,
    parts.map(lambda found: native(*found)),
    st.text(max_size=200),
    st.floats(0, 1e9),
    st.integers(0, 1 << 50),
    st.none() | st.booleans(),
    st.floats(0, 1e15),
    st.lists(
        st.builds(ProcessMemory, st.integers(0), st.text(max_size=200), st.integers(0)), max_size=5
    ).map(tuple),
)


@given(failures, st.text(max_size=200), texts, texts)
@example(
    Failure(Cause.CRASH, -11, "", FOREIGN, native(SITE, stack(*ABORT), *[ADVICE] * 9), "p\x1b"),
    "j\x1b" * 99,
    "\x1b]0;title\x07\n" * 9,
    UNKEPT * 2,
)
def test_whatever_is_found_fits_a_screen_and_does_nothing_to_a_terminal(
    failure: Failure, job: str, log: str, unkept: str
) -> None:
    lines = failure_text(failure, job, log, unkept=unkept).split("\n")
    assert len(lines) <= LINES
    assert all(len(line) <= COLUMNS for line in lines)
    assert all(line.isprintable() for line in lines)
    assert all(line.strip() for line in lines)


@given(st.text())
def test_printable_text_is_as_long_and_has_the_same_printable_letters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(old == new for old, new in zip(text, shown, strict=True) if old.isprintable())
    assert printable(text, keeps_newlines=True).split("\n") == [*map(printable, text.split("\n"))]
    shown.encode()  # no half of a surrogate pair is left


def test_the_sentence_names_the_signal_the_address_and_the_place() -> None:
    frame = Frame("null_dereference", "libzoo.so", 0x1139, 1)
    failure = Failure(Cause.CRASH, -signal.SIGSEGV, "", OWN, native(SITE, stack(frame)))
    assert first_words(failure_text(failure, "k", "")).startswith(
        "the worker that ran job 'k' crashed with SIGSEGV (Segmentation fault), reading address"
        " 0x0, in null_dereference"
    )


def test_an_abort_is_named_by_who_has_called_it_also_in_the_report() -> None:
    failure = Failure(Cause.CRASH, -signal.SIGABRT, "", OWN, native(stack(*ABORT)))
    place = "llvm::report_fatal_error(llvm::Twine const&, bool) (libtriton.so+0xa87)"
    assert place_of(failure) == place
    assert place in first_words(failure_text(failure, "softmax", ""))


def test_the_frames_of_the_pool_itself_are_left_out() -> None:
    package = Path(compilepool.__file__).parent
    files = ["/a/kernel.py", *(package / name for name in ("worker/main.py", "entry.py"))]
    frames = "".join(f'  File "{file}", line 7 in f\n' for file in files)
    crashed = f"Fatal Python error: Aborted\n\nCurrent thread 0x1 (most):\n{frames}"
    text = failure_text(Failure(Cause.CRASH, -6, text=crashed), "k", "")
    assert text.count(" line 7 in f") == 1
    assert ".python_traceback" not in text


@pytest.mark.parametrize(
    ("text", "place"), [(OWN, "compile (kernel.py:7)"), (FOREIGN, ""), ("", "")]
)
def test_without_a_native_stack_pythons_place_counts_if_its_thread_crashed(
    text: str, place: str
) -> None:
    assert place_of(Failure(Cause.CRASH, -signal.SIGSEGV, text=text)) == place


def test_of_python_the_thread_that_crashed_is_shown_or_whose_frames_these_are() -> None:
    own = failure_text(Failure(Cause.CRASH, -6, text=OWN), "k", "")
    assert '  python   File "/a/kernel.py", line 7 in compile' in own.split("\n")
    assert "other.py" not in own
    foreign = failure_text(Failure(Cause.CRASH, -6, text=FOREIGN), "k", "")
    assert "(the thread that crashed is not Python's; the first of Python's does this)" in foreign
    assert 'f.py", line 0 in f' in foreign  # the path is cut, not the line
    assert "(5 more frames in .python_traceback)" in foreign


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure(Cause.CRASH), "died, and nobody knows how"),
        (Failure(Cause.CRASH, 0), "exited with code 0 before the job had returned"),
        (Failure(Cause.CRASH, 7), "exited with code 7"),
        (Failure(Cause.CRASH, -11), "was killed by SIGSEGV (Segmentation fault)"),
        (
            Failure(Cause.CRASH, -11, text=OWN),
            "crashed with SIGSEGV (Segmentation fault), in compile",
        ),
        (Failure(Cause.CRASH, -50), "was killed by signal 50"),
        (
            Failure(Cause.CRASH, 1, text="it sent nonsense: x"),
            "exited with code 1: it sent nonsense",
        ),
        (Failure(Cause.START), "the last time its process could not be started;"),
        (Failure(Cause.START, text="no fork: E"), "could not be started: no fork: E;"),
        (Failure(Cause.START, 7, "heavy"), "exited with code 7 while it imported 'heavy';"),
        (Failure(Cause.FORK_SERVER, -9), "has lost its fork server for the second time: it was"),
        (Failure(Cause.PRELOAD, -11, "heavy"), "'heavy' was killed by SIGSEGV (Segm"),
        (Failure(Cause.PRELOAD, None, "heavy"), "'heavy' could not be imported, so job 'softmax'"),
        (Failure(Cause.PRELOAD, 3), "the fork server exited with code 3 while starting"),
    ],
)
def test_every_ending_has_its_words(failure: Failure, words: str) -> None:
    text = first_words(failure_text(failure, "softmax", ""))
    assert "'softmax'" in text
    assert words in text


@pytest.mark.parametrize(
    ("is_out_of_memory", "peak_bytes", "words"),
    [
        (True, 15 << 30, "probably for memory: the kernel's out-of-memory killer struck just then;"
         " it or a child of it had 15.0 GiB at its peak; give it more memory, or the pool fewer"),
        (True, 0, "struck just then; give it more memory"),
        (False, 1 << 20, "by neither the pool nor, as far as the kernel counts, for lack of memory;"
         " it or a child of it had 1 MiB at its peak"),
        (False, 0, "as far as the kernel counts, for lack of memory pool"),
        (None, 2 << 20, "and not by the pool; it or a child of it had 2 MiB at its peak"),
        (None, 0, "and not by the pool pool"),
    ],
)  # fmt: skip
def test_a_kill_says_of_memory_what_the_kernel_says(
    is_out_of_memory: bool | None, peak_bytes: int, words: str
) -> None:
    failure = Failure(Cause.CRASH, -9, peak_bytes=peak_bytes, is_out_of_memory=is_out_of_memory)
    text = failure_text(failure, "greedy", "").replace("\n  pool     only", " pool only")
    text = " ".join(text.split())
    assert "the worker that ran job 'greedy' was killed by SIGKILL (Killed), " in text
    assert words in text
    assert ("memory" in text) == (is_out_of_memory is not None)
    assert ("at its peak" in text) == (peak_bytes > 0)


def test_only_an_end_of_the_jobs_own_says_that_the_pool_works_on() -> None:
    own = (Cause.CRASH, Cause.TIMEOUT, Cause.MEMORY)
    for cause in Cause:
        text = failure_text(Failure(cause, 1, "heavy"), "k", "")
        assert ("only this job is lost, and the pool works on" in text) == (cause in own)


def test_advice_is_wrapped_and_not_lost() -> None:
    failure = Failure(Cause.CRASH, -11, text=OWN, native=native(SITE, ADVICE))
    text = failure_text(failure, "k", "", unkept=UNKEPT)
    assert "with sysctl-xyz" in text
    assert "COMPILEPOOL_CRASH_DIR to one of your own" in text
    folder = "/a/" + "folder/" * 40
    assert f"compilepool replay {folder}\n" in failure_text(failure, "k", "", folder=folder)


@pytest.mark.parametrize("cause", Cause)
def test_all_that_is_missing_is_in_the_error_whole(cause: Cause) -> None:
    missing = tuple(f"thing {number}: {ADVICE}" for number in range(9))
    failure = Failure(cause, -11, "heavy", OWN, native(stack(*ABORT), *missing))
    error = error_of(failure, "softmax", "said\n")
    assert isinstance(error, WorkerCrashed | PreloadFailed | JobTimeout | MemoryLimitExceeded)
    assert error.missing == missing
    assert error.python_traceback == OWN
    assert error.native_traceback.count("llvm::lower") == 40
    assert "(more in .missing)" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
    _, _, section = report_text(error).partition("\n\nMissing:\n\n")
    assert section.splitlines() == list(missing)


SPIN = stack(
    Frame("spin", "libzoo.so", 0x1139, 1),
    *(Frame("_PyEval_EvalFrameDefault", "libpython3.11.so", number, 2) for number in range(40)),
    is_crashed=False,
)
LIVE = (
    'Thread 0x02 (most recent call first):\n  File "/a/other.py", line 3 in wait\n\n'
    'Thread 0x01 (most recent call first):\n  File "/a/kernel.py", line 7 in compile\n'
)
PTXAS = ChildProcess(5, 4, "ptxas -arch sm_90 " + "x" * 200, 0.51, "R", 0.5)


def test_a_timeout_says_where_the_job_stood_and_what_its_children_did() -> None:
    native_text = native(SPIN, stack(tid=2, is_crashed=False), PTXAS)
    failure = Failure(
        Cause.TIMEOUT, text=LIVE, native=native_text, phase="ptxas", phase_s=0.4, limit=0.5
    )
    error = error_of(failure, "softmax", "said\n")
    assert isinstance(error, JobTimeout)
    assert (error.limit, error.phase, error.log) == (0.5, "ptxas", "said\n")
    assert error.children == (PTXAS,)
    text = str(error)
    assert first_words(text).startswith(
        "job 'softmax' ran longer than its timeout of 0.5 s, and was ended with all that it had"
        " started; raise timeout, or see where it stood: in spin (libzoo.so+0x1139)"
    )
    assert "  phase    ptxas, for 0.4 s\n" in text
    assert "  children ptxas -arch sm_90 xxx" in text
    assert "(0.51 s old, 0.5 s of CPU)\n" in text
    assert "           (35 more frames and 1 other thread in .native_traceback)\n" in text
    assert '  python   File "/a/kernel.py", line 7 in compile\n' in text
    assert "other.py" not in text


def test_a_timeout_in_python_code_stood_in_its_function() -> None:
    native_text = native(stack(*SPIN.frames[1:], is_crashed=False))
    text = failure_text(Failure(Cause.TIMEOUT, text=LIVE, native=native_text, limit=2), "k", "")
    assert "see where it stood: in compile (kernel.py:7)" in first_words(text)


def test_a_timeout_of_which_nothing_is_known_says_what_it_can() -> None:
    text = failure_text(Failure(Cause.TIMEOUT, limit=2), "k", "")
    assert "stood\n" in text


def test_too_much_memory_says_who_took_it() -> None:
    processes = (ProcessMemory(7, "cc1plus", 5 << 30), ProcessMemory(6, "cp-worker", 3 << 20))
    failure = Failure(
        Cause.MEMORY, text=LIVE, peak_bytes=6 << 30, limit=4 << 30, processes=processes
    )
    error = error_of(failure, "softmax", "")
    assert isinstance(error, MemoryLimitExceeded)
    assert (error.peak, error.limit, error.processes) == (6 << 30, 4 << 30, processes)
    text = str(error)
    assert "took 6.0 GiB of memory, more than its memory_limit of 4.0 GiB" in first_words(text)
    assert "  memory   5.0 GiB cc1plus (7)\n           3 MiB cp-worker (6)\n" in text
    assert "line 7 in compile" in text


def test_of_an_import_error_the_end_is_shown() -> None:
    traceback = "Traceback (most recent call last):\n" + "  File x\n    y\n" * 90 + "KeyError: 3\n"
    error = error_of(Failure(Cause.PRELOAD, None, "heavy", traceback), "k")
    assert isinstance(error, PreloadFailed)
    assert error.python_traceback == traceback
    assert "KeyError: 3" in str(error)
    assert "(170 earlier lines in .python_traceback)" in str(error)
    assert len(str(error).splitlines()) == 14


def test_the_attributes_are_raw_and_the_texts_are_not() -> None:
    log = "red\x1b[31m\r\nnext\x85line\n"
    error = error_of(Failure(Cause.CRASH, 3, phase="ph\x1base"), "job\x1b", log)
    assert isinstance(error, WorkerCrashed)
    assert (error.job, error.log, error.phase) == ("job\x1b", log, "ph\x1base")
    assert "  output   red�[31m\n           next line\n" in str(error)
    report = report_text(error)
    assert "red�[31m \nnext line" in report
    assert all(line.isprintable() for line in report.split("\n"))
    dump = str(JobDump("job\x1b", "running", phase="ph\x1base", log=log))
    assert "  red�[31m\n  next line" in dump
    assert all(line.isprintable() for line in dump.split("\n"))
