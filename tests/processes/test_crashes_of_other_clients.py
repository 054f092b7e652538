"""What a client makes of crashes that other clients of its pool have, too, or alone.

The tests speak for the supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, WorkerCrashed
from compilepool.client.session.poison import MAX_CRASHES
from compilepool.wire.channel import close_all
from compilepool.wire.failure import Cause, Failure, KeyCrash
from compilepool.wire.messages import JOINED, REUSED, Kind, Message, encode
from compilepool.wire.payloads import pack_json
from compilepool.wire.serializers import dump_payload
from compilepool.wire.usage import NO_USAGE, result_message
from tests.proc import PATIENCE_S, is_alive, pool_process, wait_until
from tests.processes.test_garbage_from_supervisors import descriptor_of
from tests.programs.gates import Gate, wait_at

CRASH = Failure(Cause.CRASH, -signal.SIGSEGV)
ELSEWHERE = CRASH._replace(kept_by=4711)


def tell(*messages: Message) -> None:
    """Send messages to the client, which is this process, as its supervisor."""
    with socket.socket(fileno=descriptor_of(pool_process("supervisor"), 3)) as channel:
        for message in messages:
            socket.send_fds(channel, [encode(message)], message.fds)
            close_all(message.fds)


def failed(id: int, failure: Failure, *, is_repeated: bool = False) -> Message:
    return failure.payload().message(Kind.FAILED, id, int(is_repeated))


def key_crashed(key: str) -> Message:
    return KeyCrash(key, "elsewhere", CRASH).payload().message(Kind.KEY_CRASHED)


def key_ran(key: str) -> Message:
    return pack_json(key).message(Kind.KEY_RAN)


def crash_of(future: CompileFuture[Any]) -> WorkerCrashed:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    return error


def is_poisoned(pool: CompilePool, key: str) -> bool:
    error = pool.options(key=key).submit(abs, -1).exception(PATIENCE_S)
    return "was not run" in str(error)


@pytest.fixture
def waiting(pool: CompilePool, gate: Gate) -> CompileFuture[None]:
    """Job 1 of the pool, which has a key and runs until the gate opens."""
    future = pool.options(key="k", name="softmax").submit(wait_at, gate.path)
    assert wait_until(future.running)
    return future


def test_a_crash_that_another_client_keeps_gets_no_second_folder(
    waiting: CompileFuture[None], root: Path
) -> None:
    tell(failed(1, ELSEWHERE))
    crash = crash_of(waiting)
    assert crash.folder == ""
    assert "job 'softmax' was killed by SIGSEGV" in str(crash)
    assert "process 4711 has submitted the same job" in str(crash)
    assert not root.exists() or not list(root.iterdir())


def test_a_crash_that_another_client_keeps_whose_pid_is_unknown(
    waiting: CompileFuture[None],
) -> None:
    tell(failed(1, CRASH._replace(kept_by=-1)))
    assert "another process has submitted the same job" in str(crash_of(waiting))


def test_one_crash_of_several_jobs_counts_once(pool: CompilePool, gate: Gate) -> None:
    futures = [pool.options(key="k").submit(wait_at, gate.path) for _ in range(4)]
    assert wait_until(futures[0].running)
    tell(
        failed(1, ELSEWHERE),
        *(failed(id, ELSEWHERE, is_repeated=True) for id in (2, 3, 4)),
    )
    for future in futures:
        crash_of(future)
    gate.open()
    assert not is_poisoned(pool, "k")


def test_crashes_of_other_clients_poison_a_key(
    pool: CompilePool, waiting: CompileFuture[None], gate: Gate
) -> None:
    blocked = [pool.submit(wait_at, gate.path) for _ in range(2)]
    queued = pool.options(key="k").submit(abs, -1)
    tell(key_crashed("k"), key_crashed("k"), key_crashed("other"))
    tell(key_crashed("k"))
    error = str(crash_of(queued))
    assert "its key 'k' have crashed their worker 3 times in a row" in error
    assert "job 'elsewhere' was killed by SIGSEGV" in error
    gate.open()
    for future in (waiting, *blocked):  # what runs is not stopped
        assert future.result(PATIENCE_S) is None
    assert not is_poisoned(pool, "other")


def test_a_job_of_another_client_that_ends_well_makes_crashes_forgotten(
    pool: CompilePool, gate: Gate
) -> None:
    blocked = [pool.submit(wait_at, gate.path) for _ in range(2)]
    assert wait_until(lambda: all(future.running() for future in blocked))
    queued = pool.options(key="k").submit(abs, -1)
    tell(*(key_crashed("k") for _ in range(MAX_CRASHES)))
    assert "was not run" in str(crash_of(queued))
    gate.open()
    assert is_poisoned(pool, "k")
    tell(key_ran("k"))
    assert wait_until(lambda: not is_poisoned(pool, "k"))


@pytest.mark.parametrize("flag", [JOINED, REUSED])
def test_a_result_that_is_shared_is_a_result(waiting: CompileFuture[Any], flag: int) -> None:
    tell(result_message(1, flag, dump_payload("shared"), NO_USAGE))
    assert waiting.result(PATIENCE_S) == "shared"


@pytest.mark.parametrize("kind", [Kind.KEY_CRASHED, Kind.KEY_RAN])
def test_nonsense_about_a_key_costs_the_supervisor_only(pool: CompilePool, kind: Kind) -> None:
    assert pool.submit(os.getppid).result(PATIENCE_S)
    before = pool_process("supervisor")
    tell(pack_json([1, 2]).message(kind))
    assert wait_until(lambda: not is_alive(before))
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
