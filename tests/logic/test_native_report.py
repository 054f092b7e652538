"""A native report as lines and as text: it survives whatever a broken process makes of it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from compilepool.inspector.report_writer import MAX_REPORT, ReportWriter
from compilepool.inspector.stacks import MAX_THREADS
from compilepool.wire.native_report import (
    MAX_FRAMES,
    ChildProcess,
    CrashSite,
    Frame,
    NativeReport,
    ThreadStack,
    native_traceback,
    telling_frames,
    to_line,
)


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


CRASH = CrashSite(12, "worker", 0x1139, 0, "write", 14, "libzoo.so", 0x139)
CRASHED = ThreadStack(
    12,
    "worker",
    "S",
    True,
    [Frame("null_dereference", "libzoo.so", 0x1139, 0x71139), Frame("??", None, 0, 0)],
    True,
)
WAITING = ThreadStack(11, "main", "S", False, [Frame("read", "libc.so.6", 16, 0x7010)], False)
CHILD = ChildProcess(13, 12, "sleep 1000", 1.5, "S", 0.25)
REPORT = NativeReport(CRASH, [CRASHED, WAITING], ["something: for a reason"], [CHILD])
LINES = b"".join(
    [to_line(CRASH), to_line(REPORT.missing[0]), *map(to_line, REPORT.threads), to_line(CHILD)]
)
printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
number = st.integers(0, (1 << 64) - 1)
frames = st.builds(Frame, printable, st.none() | printable, number, number)
threads = st.builds(
    ThreadStack, number, printable, printable, st.booleans(), st.lists(frames), st.booleans()
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_lines_of_a_report() -> None:
    assert NativeReport.of_lines(LINES) == REPORT


def test_the_crashed_thread_stands_first() -> None:
    report = NativeReport.of_lines(to_line(WAITING) + to_line(CRASHED))
    assert report.threads == [CRASHED, WAITING]


@given(st.lists(threads, unique_by=lambda stack: stack.tid))
def test_any_threads_come_through(stacks: list[ThreadStack]) -> None:
    report = NativeReport.of_lines(b"".join(map(to_line, stacks)))
    assert report.threads == sorted(stacks, key=lambda stack: not stack.is_crashed)


def test_a_stack_that_comes_again_with_names_replaces_the_one_without() -> None:
    bare = CRASHED._replace(frames=[Frame("??", "libzoo.so", 0x1139, 0x71139)])
    report = NativeReport.of_lines(to_line(bare) + to_line(WAITING) + to_line(CRASHED))
    assert report.threads == [CRASHED, WAITING]


def of_libraries(*libraries: str) -> ThreadStack:
    frames = [Frame(f"f{i}", library, i, i) for i, library in enumerate(libraries)]
    return CRASHED._replace(frames=frames)


def test_how_the_runtime_ends_a_process_is_left_out() -> None:
    stack = of_libraries("libc.so.6", "libc.so.6", "libstdc++.so.6.0.30", "libzoo.so", "libc.so.6")
    assert [frame.function for frame in telling_frames(stack)] == ["f2", "f3", "f4"]
    text = native_traceback(NativeReport(None, [stack, WAITING], [], []))
    assert "without the 2 calls" in text
    assert "  #0 f2 (libstdc++.so.6.0.30+0x2)\n  #1 f3 (libzoo.so+0x3)" in text


@given(st.lists(st.sampled_from(["libc.so.6", "libzoo.so", "ld-linux-x86-64.so.2"])))
def test_what_tells_is_never_left_out(libraries: list[str]) -> None:
    stack = of_libraries(*libraries)
    left = telling_frames(stack)
    assert left == stack.frames[len(stack.frames) - len(left) :]
    assert [frame for frame in left if frame.library == "libzoo.so"] == [
        frame for frame in stack.frames if frame.library == "libzoo.so"
    ]
    assert bool(left) == bool(libraries)


@given(st.binary())
def test_garbage_is_no_report(data: bytes) -> None:
    assert NativeReport.of_lines(data) == NativeReport(None, [], [], [])


@given(st.integers(0, len(LINES)))
def test_what_came_of_a_report_that_was_cut_off(length: int) -> None:
    report = NativeReport.of_lines(LINES[:length])
    whole_lines = LINES[: length + 1].count(b"\n")
    parts = [report.crash, *report.missing, *report.threads, *report.children]
    assert len([part for part in parts if part is not None]) == whole_lines


@given(st.sampled_from(LINES.splitlines()), st.data())
def test_a_wrong_value_costs_its_line_at_most(line: bytes, data: st.DataObject) -> None:
    ((kind, part),) = json.loads(line).items()
    if isinstance(part, dict):
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(jsons)
    else:
        part = data.draw(jsons)
    report = NativeReport.of_lines(json.dumps({kind: part}).encode() + b"\n" + LINES)
    native_traceback(report).encode()
    assert set(map(str, REPORT.threads)) <= set(map(str, report.threads))


def test_text_of_a_report() -> None:
    assert native_traceback(REPORT) == (
        "Thread 12 'worker' (crashed), most recent call first:\n"
        "  #0 null_dereference (libzoo.so+0x1139)\n"
        "  #1 ?? (0x0, not mapped)\n"
        "  … cut at 2 frames\n"
        "\n"
        "Thread 11 'main' (sleeping), most recent call first:\n"
        "  #0 read (libc.so.6+0x10)"
    )


def test_names_cannot_forge_lines() -> None:
    thread = WAITING._replace(name="a\n  #0 \x1b[31mb\ud800")
    text = native_traceback(NativeReport.of_lines(to_line(thread)))
    assert text.startswith("Thread 11 'a   #0  [31mb ' (sleeping)")
