"""A trace is whole after every write, and on a full disk."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool.observe.trace import TraceFile
from tests.traces import Event, files_of_at_most, read

JSON = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
EVENTS = st.dictionaries(st.text(), JSON | st.dictionaries(st.text(), JSON), max_size=4)


@given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=8))
@settings(max_examples=30)
def test_a_trace_has_all_events_after_every_write(
    tmp_path: Path, writes: list[list[Event]]
) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(str(path))
    try:
        expected: list[Event] = []
        assert read(path) == expected
        for events in writes:
            file.write(events)
            expected += events
            assert read(path) == expected
    finally:
        file.close()


def write_until_full(file: TraceFile, event: Event) -> int:
    """Write the same event again and again. Returns how often that went well."""
    count = 0
    try:
        while True:
            file.write([event])
            count += 1
    except OSError:
        return count


@given(st.integers(10, 200), st.integers(1, 80))
@settings(max_examples=50)
def test_a_trace_is_whole_when_the_disk_is_full(tmp_path: Path, room: int, length: int) -> None:
    path = tmp_path / "trace.json"
    event = {"name": "x" * length}
    file = TraceFile(str(path))
    with files_of_at_most(room):
        count = write_until_full(file, event)
    file.close()
    assert read(path) == [event] * count
