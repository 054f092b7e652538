"""Calls and results of any size: beyond the inline limit they pass the supervisor by."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from compilepool import CompilePool
from compilepool.wire.messages import Form
from compilepool.wire.payloads import INLINE_LIMIT, pack
from compilepool.wire.serializers import dump_payload
from compilepool.wire.spares import Spares
from tests.proc import PATIENCE_S, pool_process, wait_until

MIB = 1 << 20
GIB = 1 << 30


def describe(data: bytes) -> tuple[int, int]:
    """The length of a large object, and a sum that depends on every byte."""
    import zlib

    return len(data), zlib.crc32(data)


def make(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


def test_the_largest_inline_call_and_the_smallest_other_arrive(pool: CompilePool) -> None:
    call = dump_payload((describe, (make(60_000),), {}))
    assert call.form is Form.INLINE
    largest = 60_000 + INLINE_LIMIT - len(call.body)
    for size in range(largest - 2, largest + 3):
        payload = dump_payload((describe, (make(size),), {}))
        assert payload.is_inline == (size <= largest)
        payload.close()
        assert pool.submit(describe, make(size)).result(PATIENCE_S) == describe(make(size))


def test_the_largest_inline_result_and_the_smallest_other_arrive(pool: CompilePool) -> None:
    result = dump_payload(make(60_000))
    assert result.form is Form.INLINE
    largest = 60_000 + INLINE_LIMIT - len(result.body)
    for size in range(largest - 2, largest + 3):
        payload = dump_payload(make(size))
        assert payload.is_inline == (size <= largest)
        payload.close()
        assert pool.submit(make, size).result(PATIENCE_S) == make(size)


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT * 2, MIB + 1, 64 * MIB])
def test_objects_of_all_sizes_go_there_and_back(pool: CompilePool, size: int) -> None:
    data = make(size)
    assert pool.submit(bytes.__add__, data, b"").result(PATIENCE_S) == data


def write_into_each(buffers: list[bytearray]) -> list[pickle.PickleBuffer]:
    """A job that gets its buffers out of band, may write to them, and returns them likewise."""
    for buffer in buffers:
        memoryview(buffer)[:1] = b"!"
    return [pickle.PickleBuffer(bytearray(buffer)) for buffer in buffers]


@pytest.mark.parametrize("sizes", [[1, 100], [MIB, 3], [0, 2 * MIB + 1, 63]])
def test_out_of_band_buffers_arrive_writable_and_equal_both_ways(
    pool: CompilePool, sizes: list[int]
) -> None:
    buffers = [bytearray(make(size)) for size in sizes if size]
    sent = [pickle.PickleBuffer(buffer) for buffer in buffers]
    received = pool.submit(write_into_each, sent).result(PATIENCE_S)  # type: ignore[arg-type] # they arrive as the bytearrays that they wrap
    for buffer, other in zip(buffers, received, strict=True):
        assert bytes(memoryview(other)[:1]) == b"!"
        assert memoryview(other)[1:] == memoryview(buffer)[1:]
        memoryview(other)[:1] = b"?"
        assert buffer[0] == 0, "the sender's own buffer is as it was"


def raise_large(size: int) -> None:
    raise LookupError(make(size))


def test_a_large_exception_arrives(pool: CompilePool) -> None:
    error = pool.submit(raise_large, MIB).exception(PATIENCE_S)
    assert isinstance(error, LookupError)
    assert error.args == (make(MIB),)


def test_a_large_initializer_argument_reaches_every_worker() -> None:
    with CompilePool(2, initializer=keep, initargs=(make(MIB),)) as pool:
        futures = [pool.submit(kept) for _ in range(4)]
        assert {future.result(PATIENCE_S) for future in futures} == {describe(make(MIB))}


def keep(data: bytes) -> None:
    global _kept  # noqa: PLW0603 - what an initializer is for
    _kept = data


def kept() -> tuple[int, int]:
    return describe(_kept)


_kept = b""


def test_many_queued_large_calls_do_not_use_up_the_clients_descriptors() -> None:
    program = """
import os, resource

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))

from compilepool import CompilePool

def size(data, gate):
    with open(gate):
        return len(data)

gate = os.path.join(os.environ["TMPDIR"], "gate")
os.mkfifo(gate)
with CompilePool(2) as pool:
    futures = [pool.submit(size, bytes(100_000 + i), gate) for i in range(200)]
    assert not any(future.done() for future in futures)
    # As long as this is open, opening it for reading does not wait.
    both_ends = os.open(gate, os.O_RDWR)
    assert [future.result() for future in futures] == [100_000 + i for i in range(200)]
os.close(both_ends)
os.unlink(gate)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=2 * PATIENCE_S)


def test_no_call_is_lost_when_the_kernel_takes_no_more_descriptors() -> None:
    # It takes no more in flight, of all the user's processes, than one of them may have open,
    # unix(7); privileged processes are exempt, so these give up what makes them so.
    program = """
import ctypes, resource

PR_CAPBSET_DROP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 24, 21, 24
for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

from compilepool import CompilePool

with CompilePool(2) as pool:
    futures = [pool.submit(len, bytes(100_000 + i)) for i in range(500)]
    assert [future.result(20) for future in futures] == [100_000 + i for i in range(500)]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=3 * PATIENCE_S)


def test_many_large_results_wait_for_a_client_that_does_not_take_them(
    pool: CompilePool, tmp_path: Path
) -> None:
    begin, end = tmp_path / "begin", tmp_path / "end"
    os.mkfifo(begin)
    first = pool.submit(begin.read_text)
    # A callback occupies the thread that receives results.
    are_all_there = threading.Event()
    first.add_done_callback(lambda _: are_all_there.wait(PATIENCE_S))
    begin.write_text("now")
    futures = [pool.submit(make, 100_000 + i) for i in range(100)]
    pool.submit(end.touch)
    assert wait_until(end.exists)
    assert not any(future.done() for future in futures)
    are_all_there.set()
    for i, future in enumerate(futures):
        assert future.result(PATIENCE_S) == make(100_000 + i)


def memory_of(pid: int, field: str) -> int:
    """A field of /proc/PID/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def test_the_supervisor_neither_maps_nor_copies_what_passes(pool: CompilePool) -> None:
    data = make(64 * MIB)
    assert pool.submit(describe, data).result(PATIENCE_S) == describe(data)
    supervisor = pool_process("supervisor")
    resident = memory_of(supervisor, "VmHWM")
    mapped = memory_of(supervisor, "VmPeak")
    for _ in range(3):
        assert pool.submit(bytes.__add__, data, b"").result(PATIENCE_S) == data
    assert memory_of(supervisor, "VmHWM") - resident < 4 * MIB
    assert memory_of(supervisor, "VmPeak") - mapped < 4 * MIB


def test_a_result_too_large_for_the_clients_memory_fails_its_job_alone() -> None:
    program = """
import resource
from compilepool import CompilePool, CompilePoolError

with CompilePool(1) as pool:
    assert pool.submit(abs, -1).result() == 1
    with open("/proc/self/status") as status:
        (used,) = [int(line.split()[1]) for line in status if line.startswith("VmSize")]
    limit = used * 1024 + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    error = pool.options(name="big").submit(bytes, 256 << 20).exception(20)
    assert isinstance(error, CompilePoolError), error
    assert "'big'" in str(error), error
    assert pool.submit(abs, -1).result() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=2 * PATIENCE_S)


def available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@pytest.mark.alone
def test_more_than_two_gigabytes_go_there_and_back(pool: CompilePool) -> None:
    if not os.environ.get("COMPILEPOOL_TEST_GIGABYTES"):
        pytest.skip("takes up to half a minute: set COMPILEPOOL_TEST_GIGABYTES=1 to run it")
    if available_memory() < 10 * GIB:
        pytest.skip("needs 10 GiB of available memory")
    size = 2 * GIB + 4097
    data = bytearray(size)
    data[-1] = data[0] = 7
    received = pool.submit(bytes, pickle.PickleBuffer(data)).result(5 * PATIENCE_S)
    assert len(received) == size
    assert (received[0], received[size // 2], received[-1]) == (7, 0, 7)


def test_a_forked_child_takes_no_spare() -> None:
    with contextlib.closing(Spares(1)) as spares:
        spares.put(pack([[bytes(100_000)]], spares=spares).fd, is_read=True)
        pid = os.fork()
        if pid == 0:
            os._exit(spares.take() != -1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        fd = spares.take()
        assert fd >= 0
        os.close(fd)
