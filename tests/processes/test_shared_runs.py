"""Jobs of several clients that share runs, and results that are kept for later ones."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from compilepool.wire.failure import Cause, Failure, KeyCrash
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import JOINED, REUSED, Form, Kind, Message
from compilepool.wire.payloads import of_message, unpack_json
from tests.processes.shared_pool import Client, shared_pool
from tests.programs.fifos import Fifo, run_until

SIZE = 1_000_000  # bytes; a result of this size is in a memfd


@pytest.fixture
def two() -> Iterator[list[Client]]:
    with shared_pool() as clients:
        yield clients


def note(path: Path, value: object) -> object:
    """A job that leaves a trace of each of its runs."""
    with path.open("a") as file:
        file.write("x")
    return value


def note_when(fifo: Path, path: Path, value: object) -> object:
    run_until(fifo)
    return note(path, value)


def runs(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def say(text: str) -> None:
    print(text)


def say_when(fifo: Path, text: str) -> None:
    run_until(fifo)
    print(text)


def fill(byte: bytes) -> bytes:
    return byte * SIZE


def fill_when(fifo: Path, byte: bytes) -> bytes:
    run_until(fifo)
    return byte * SIZE


def fail_when(fifo: Path) -> None:
    run_until(fifo)
    raise LookupError("no such kernel")


def crash_when(fifo: Path) -> None:
    run_until(fifo)
    os.kill(os.getpid(), signal.SIGABRT)


def start_both(clients: list[Client], fifo: Fifo, function: object, *args: object) -> list[int]:
    """Both submit the same; returns when the run has been reported to both."""
    first, second = clients
    assert callable(function)
    ids = [first.submit(function, fifo.path, *args, flight="f")]
    fifo.is_reached()
    first.hears(Kind.STARTED, ids[0])
    second.last_id = 10  # its numbers are its own
    ids.append(second.submit(function, fifo.path, *args, flight="f"))
    second.hears(Kind.STARTED, ids[1])
    return ids


def test_jobs_with_the_same_flight_share_a_run(
    two: list[Client], fifo: Fifo, tmp_path: Path
) -> None:
    first, second = two
    ids = start_both(two, fifo, note_when, tmp_path / "runs", "result")
    fifo.open()
    value, flag, usage = first.result(ids[0])
    assert (value, flag) == ("result", 0)
    assert second.result(ids[1]) == ("result", JOINED, usage)
    assert runs(tmp_path / "runs") == 1


def test_a_job_that_comes_late_gets_the_result_that_was_kept(
    two: list[Client], tmp_path: Path
) -> None:
    first, second = two
    path = tmp_path / "runs"
    value, flag, usage = first.result(first.submit(note, path, "result", flight="f"))
    assert (value, flag) == ("result", 0)
    for client in (second, first):
        id = client.submit(note, path, "result", flight="f")
        assert client.result(id) == ("result", REUSED, usage)
    assert runs(path) == 1
    assert second.result(second.submit(note, path, 2, flight="g"))[:2] == (2, 0)
    assert second.result(second.submit(note, path, 3))[:2] == (3, 0)
    assert second.result(second.submit(note, path, 4))[:2] == (4, 0)
    assert runs(path) == 4


def test_who_reads_late_reads_what_nobody_has_written_over(two: list[Client], fifo: Fifo) -> None:
    """A worker writes its memfds again. The first reader marks one, and the second has not read."""
    first, second = two
    ids = start_both(two, fifo, fill_when, b"a")
    fifo.open()
    assert first.result(ids[0])[0] == fill(b"a")
    for byte in (b"b", b"c", b"d", b"e", b"f"):
        assert first.result(first.submit(fill, byte))[0] == fill(byte)
    assert second.result(ids[1])[:2] == (fill(b"a"), JOINED)
    assert second.result(second.submit(fill_when, fifo.path, b"a", flight="f"))[:2] == (
        fill(b"a"),
        REUSED,
    )


def test_nobody_can_change_what_others_read(two: list[Client]) -> None:
    first, second = two
    id = first.submit(fill, b"a", flight="f")
    message = first.hears(Kind.RESULT, id)
    (fd,) = message.fds
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"z", SIZE // 2)
    with pytest.raises(PermissionError):
        os.truncate(fd, 0)
    os.close(fd)
    assert second.result(second.submit(fill, b"a", flight="f"))[0] == fill(b"a")


def test_a_run_goes_on_while_anybody_wants_it(two: list[Client], fifo: Fifo) -> None:
    first, second = two
    ids = start_both(two, fifo, run_until)
    first.cancel(ids[0])
    first.hears(Kind.CANCELLED, ids[0])
    fifo.open()
    assert second.result(ids[1])[:2] == ("ran", JOINED)


def test_a_job_that_is_cancelled_while_it_is_dumped_has_ended_though_its_run_goes_on(
    two: list[Client], fifo: Fifo
) -> None:
    first, second = two
    ids = start_both(two, fifo, run_until)
    first.channel.send(Message(Kind.DUMP, ids[0]))
    first.cancel(ids[0])
    first.hears(Kind.CANCELLED, ids[0])
    dumped = first.hears(Kind.DUMPED, ids[0])
    assert JobSnapshot.of_payload(of_message(dumped)) == JobSnapshot("ended")
    fifo.open()
    assert second.result(ids[1])[:2] == ("ran", JOINED)


def test_a_run_goes_on_when_the_client_dies_that_submitted_it_first(
    two: list[Client], fifo: Fifo
) -> None:
    first, second = two
    ids = start_both(two, fifo, run_until)
    first.die()
    fifo.open()
    assert second.result(ids[1])[:2] == ("ran", JOINED)


def test_a_run_that_nobody_wants_is_ended_and_not_joined(
    two: list[Client], fifo: Fifo, tmp_path: Path
) -> None:
    first, second = two
    ids = start_both(two, fifo, run_until)
    for client, id in zip(two, ids, strict=True):
        client.cancel(id)
        client.hears(Kind.CANCELLED, id)
    assert second.result(second.submit(note, tmp_path / "runs", 1, flight="f"))[:2] == (1, 0)
    assert first.result(first.submit(note, tmp_path / "runs", 1, flight="f"))[:2] == (1, REUSED)


def test_a_run_that_waits_is_joined_and_cancelled(two: list[Client], fifo: Fifo) -> None:
    first, second = two
    blocker = first.submit(run_until, fifo.path)
    fifo.is_reached()
    first.hears(Kind.STARTED, blocker)
    waiting = [client.submit(abs, -1, flight="f") for client in two]
    second.is_heard()
    first.cancel(waiting[0])
    first.hears(Kind.CANCELLED, waiting[0])
    third = first.submit(abs, -1, flight="f")
    fifo.open()
    first.result(blocker)
    assert second.result(waiting[1])[:2] == (1, JOINED)
    assert first.result(third)[:2] == (1, JOINED)


def test_an_exception_is_everybodys_and_is_not_kept(
    two: list[Client], fifo: Fifo, tmp_path: Path
) -> None:
    ids = start_both(two, fifo, fail_when)
    fifo.open()
    for client, id in zip(two, ids, strict=True):
        error, *_ = client.result(id)
        assert isinstance(error, LookupError)
    assert two[0].result(two[0].submit(note, tmp_path / "runs", 1, flight="f"))[:2] == (1, 0)


def test_output_goes_to_everybody(two: list[Client], fifo: Fifo) -> None:
    first, second = two
    ids = start_both(two, fifo, say_when, "hello")
    fifo.open()
    for client, id in zip(two, ids, strict=True):
        assert client.hears(Kind.LOG, id).body == b"hello\n"
        client.result(id)
    late = second.submit(say, "hello", flight="f")
    assert second.hears(Kind.LOG, late).body == b"hello\n"
    assert second.result(late)[1] == REUSED
    first.cancel(ids[0])  # it has ended, and nothing is heard of it


def test_a_timeout_is_everybodys(two: list[Client], fifo: Fifo) -> None:
    first, second = two
    ids = [first.submit(run_until, fifo.path, flight="f", timeout_s=0.3)]
    first.hears(Kind.STARTED, ids[0])
    ids.append(second.submit(run_until, fifo.path, flight="f", timeout_s=0.3))
    second.hears(Kind.STARTED, ids[1])
    for client, id in zip(two, ids, strict=True):
        assert client.failure(id)[0].cause is Cause.TIMEOUT


def test_after_a_reload_nothing_is_reused(fifo: Fifo, tmp_path: Path) -> None:
    with shared_pool(max_workers=2) as clients:
        first, second = clients
        path = tmp_path / "runs"
        first.result(first.submit(note, path, 1, flight="kept"))
        ids = start_both(clients, fifo, run_until)
        first.channel.send(Message(Kind.RELOAD))
        assert first.result(first.submit(note, path, 2, flight="kept"))[:2] == (2, 0)
        assert second.result(second.submit(note, path, 3, flight="f"))[:2] == (3, 0)
        fifo.open()
        assert first.result(ids[0])[0] == second.result(ids[1])[0] == "ran"
        assert first.result(first.submit(note, path, 4, flight="f"))[:2] == (3, REUSED)


def test_a_crash_is_everybodys_and_one_client_keeps_it() -> None:
    with shared_pool(3) as clients:
        first, second, third = clients
        fifo = Fifo(Path(os.environ["TMPDIR"]) / "fifo")
        try:
            ids = [first.submit(crash_when, fifo.path, flight="f", key="k")]
            fifo.is_reached()
            first.hears(Kind.STARTED, ids[0])
            for client in (second, second, first):
                ids.append(client.submit(crash_when, fifo.path, flight="f", key="k"))
                client.hears(Kind.STARTED, ids[-1])
        finally:
            fifo.close()
            fifo.path.unlink()
        kept, flag = first.failure(ids[0])
        assert (kept.cause, kept.exitcode) == (Cause.CRASH, -signal.SIGABRT)
        assert (kept.kept_by, flag) == (0, 0)
        keeper = first.stand_in.pid
        assert second.failure(ids[1]) == (kept._replace(kept_by=keeper), 0)
        assert second.failure(ids[2]) == (kept._replace(kept_by=keeper), 1)
        assert first.failure(ids[3]) == (kept._replace(kept_by=keeper), 1)
        crash = KeyCrash.of_payload(of_message(third.hears(Kind.KEY_CRASHED, 0)))
        assert crash == KeyCrash("k", "job", kept)
        id = second.submit(abs, -1, key="k")
        assert second.result(id)[0] == 1
        for client in (first, third):
            message = client.hears(Kind.KEY_RAN, 0)
            assert unpack_json(of_message(message), str, "a key") == "k"
        assert second.result(second.submit(abs, -1, key="k"))[0] == 1, "nobody hears of this"
        assert first.result(first.submit(abs, -2))[0] == 2


def leave_a_thread_that_crashes() -> None:
    """Its worker dies when the job has ended."""
    import threading
    import time

    def crash() -> None:
        time.sleep(0.05)
        os.abort()

    threading.Thread(target=crash, daemon=True).start()


def test_all_clients_hear_of_a_worker_that_dies_idle_and_one_keeps_its_report(
    two: list[Client],
) -> None:
    first = two[0]
    first.result(first.submit(leave_a_thread_that_crashes))
    failures = [Failure.of_message(client.hears(Kind.DIED_IDLE, 0)) for client in two]
    assert [failure.kept_by for failure in failures] == [0, first.stand_in.pid]


def test_a_result_for_which_there_is_no_descriptor_costs_no_other_job(
    two: list[Client], fifo: Fifo
) -> None:
    first, second = two
    ids = start_both(two, fifo, fill_when, b"a")
    supervisor = first.supervisor
    used = {int(fd) for fd in os.listdir(f"/proc/{supervisor}/fd")}
    free = min(set(range(len(used) + 1)) - used)
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    # One more for the result that comes from the worker, and none for a copy.
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (free + 1, limits[1]))
    fifo.open()
    lost = first.hears(Kind.RESULT, ids[0])
    assert (lost.form, lost.fds) == (Form.MEMFD, ())
    assert second.result(ids[1])[0] == fill(b"a")
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    assert second.result(second.submit(fill, b"a", flight="f"))[:2] == (fill(b"a"), 0)
    assert second.result(second.submit(fill, b"a", flight="f"))[:2] == (fill(b"a"), REUSED)
