"""Configurations, failures, snapshots and submissions: whole or broken, each is read or refused."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool.wire.failure import Cause, Failure, LeftBehind
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import (
    MAX_BODY,
    MAX_PACKET,
    Form,
    Kind,
    Message,
    ProtocolError,
    decode,
    encode,
)
from compilepool.wire.payloads import INLINE_LIMIT, Payload, Unpacked, of_message, pack
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.status_page import (
    LONG_TEARDOWN_S,
    MAX_LEFT,
    StatusPage,
    make_status,
    read_status,
)
from compilepool.wire.submission import (
    DEFAULT_TERMS,
    JobTerms,
    job_message,
    read_job,
    read_submit,
    submit_message,
)
from compilepool.wire.usage import Usage
from compilepool.wire.worker_start import WorkerFds
from tests.memfds import is_open, sparse_memfd

CONFIG = PoolConfig(
    2, "fork", ["json"], ["-B"], ["/lib"], ["prog"], "/", True, "/logs", True, "libdw.so.1"
)


def config_payload(body: bytes) -> Payload:
    return pack([[body]])


@given(st.builds(dict, sys_path=st.lists(st.text(max_size=9)), cwd=st.text(max_size=9)))
@settings(max_examples=30)
def test_a_configuration_arrives_in_every_form(changes: dict[str, Any]) -> None:
    config = CONFIG._replace(**changes)
    for limit in (-1, INLINE_LIMIT):
        assert PoolConfig.of_payload(config.payload(inline_limit=limit)) == config


WRONG_FIELDS: dict[str, list[object]] = {
    "max_workers": [None, "2", 2.5, [], 0, -1],
    "start_method": [None, 1, "forkserver", ["fork"]],
    "preload": [None, "json", [1], [None], {"json": 1}],
    "python_flags": [None, "-B", [1]],
    "sys_path": [None, "/lib", [["/lib"]]],
    "argv": [None, "prog"],
    "cwd": [None, 0, ["/"]],
    "capture": [None, 1, "yes"],
    "log_dir": [None, 0],
    "native_tracebacks": [None, 0],
    "libdw": [None, ["libdw.so.1"]],
    "seed": ["1", 1.5],
    "client_pid": [None, "1"],
    "client_name": [None, 1],
    "authkey": [None, 1],
    "mp_start_method": [None, 1],
    "unknown": [1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG_FIELDS for value in WRONG_FIELDS[field]]
)
def test_a_configuration_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    fields = {**CONFIG._asdict(), field: value}
    with pytest.raises(ProtocolError):
        PoolConfig.of_payload(config_payload(json.dumps(fields).encode()))


@given(st.binary(max_size=50))
@settings(max_examples=50)
@example(b"{}")
@example(b"null")
@example(b"[" * 60000)
@example(b"\xff")
def test_garbage_is_no_configuration(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        PoolConfig.of_payload(config_payload(body))


def test_a_configuration_larger_than_any_is_refused_before_it_is_read() -> None:
    size = 1 << 40
    fd = sparse_memfd(struct.pack("<I4xQ", 1, size - 1024), size)
    with pytest.raises(ProtocolError):
        PoolConfig.of_payload(Payload(Form.MEMFD, b"", fd))
    assert not is_open(fd)


@given(
    st.builds(
        Failure,
        st.sampled_from(Cause),
        st.none() | st.integers(-64, 255),
        st.text(max_size=20),
        st.text(max_size=200),
        st.text(max_size=200),
        st.text(max_size=20),
        st.floats(0, 1e6),
        st.integers(0, 1 << 50),
        st.booleans(),
        limit=st.floats(0, 1e6),
        jobs_before=st.integers(0, 1 << 50),
        last_job=st.text(max_size=20),
        left_behind=st.sampled_from(LeftBehind),
        usage=st.just(Usage(1.0, 2.0, 0.5, 1 << 40, 77, 2, '[["parse", 1.5]]')),
    )
)
@settings(max_examples=50)
def test_a_failure_arrives(failure: Failure) -> None:
    assert Failure.of_payload(failure.payload()) == failure


def test_a_failure_whose_descriptor_got_lost_is_a_crash_without_a_report() -> None:
    failure = Failure.of_message(Message(Kind.FAILED, 1, form=Form.MEMFD))
    assert failure == Failure(Cause.CRASH, text="its report got lost: too many open files")


def test_a_failure_of_any_size_arrives() -> None:
    failure = Failure(Cause.CRASH, -11, text="t" * MAX_PACKET, native="n" * MAX_PACKET)
    assert Failure.of_payload(failure.payload()) == failure


@pytest.mark.parametrize(
    "changes",
    [
        {"cause": None},
        {"cause": "boredom"},
        {"cause": ["crash"]},
        {"exitcode": "11"},
        {"exitcode": 1.5},
        {"module": None},
        {"text": 5},
        {"native": None},
        {"phase": None},
        {"phase_s": "1"},
        {"peak_bytes": 1.5},
        {"is_out_of_memory": 1},
        {"unknown": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_failure_with_a_wrong_field_is_refused(changes: dict[str, object]) -> None:
    fields = {**Failure(Cause.CRASH, -11)._asdict(), **changes}
    with pytest.raises(ProtocolError):
        Failure.of_payload(pack([[json.dumps(fields).encode()]]))


@given(st.binary(max_size=50))
@settings(max_examples=50)
@example(b"{}")
@example(b"[" * MAX_BODY)
def test_garbage_is_no_failure_and_no_snapshot(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Failure.of_payload(pack([[body]]))
    with pytest.raises(ProtocolError):
        JobSnapshot.of_payload(pack([[body]]))


@given(
    st.builds(
        JobSnapshot,
        st.sampled_from(["queued", "running", "ended"]),
        st.text(max_size=50),
        st.text(max_size=50),
        st.text(max_size=50),
        st.floats(0, 1e6),
        st.floats(0, 1e6),
        st.text(max_size=50),
    )
)
@settings(max_examples=30)
def test_a_snapshot_of_a_job_arrives(snapshot: JobSnapshot) -> None:
    assert JobSnapshot.of_payload(snapshot.payload()) == snapshot


@pytest.mark.parametrize("changes", [{"state": None}, {"log": 1}, {"run_s": ""}, {"x": 1}])
def test_a_snapshot_with_a_wrong_field_is_refused(changes: dict[str, object]) -> None:
    fields = {**JobSnapshot("running")._asdict(), **changes}
    with pytest.raises(ProtocolError):
        JobSnapshot.of_payload(pack([[json.dumps(fields).encode()]]))


@given(st.text(max_size=300), st.binary(max_size=100))
def test_a_job_arrives_with_its_name(name: str, call: bytes) -> None:
    (message,) = decode(encode(submit_message(3, name, pack([[call]]))))
    told, terms, payload_at = read_submit(message)
    assert terms == DEFAULT_TERMS
    assert told == name[:256].encode(errors="replace").decode()
    with Unpacked(of_message(message, payload_at)) as unpacked:
        assert bytes(unpacked.stream) == call


@given(
    st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=3),
    st.none() | st.integers(0, (1 << 64) - 1),
    st.sampled_from(["", "00ff"]),
    st.binary(max_size=100),
)
def test_a_worker_gets_the_settings_of_a_job(
    env: list[tuple[str, str | None]], seed: int | None, authkey: str, call: bytes
) -> None:
    terms = JobTerms(env=tuple(env), seed=seed, authkey=authkey, timeout_s=1.0)
    (submitted,) = decode(encode(submit_message(3, "name", pack([[call]]), terms)))
    _, told, _ = read_submit(submitted)
    assert told == terms
    (message,) = decode(encode(job_message(4, told, pack([[call]]))))
    settings, payload_at = read_job(message)
    assert settings == (tuple(env), seed, authkey)
    with Unpacked(of_message(message, payload_at)) as unpacked:
        assert bytes(unpacked.stream) == call


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.5, "1", True])
def test_settings_with_a_wrong_seed_are_refused(seed: Any) -> None:
    # Not by `job_message`: what it sends for equal settings is kept, and True equals 1.
    job_settings = json.dumps([[], [seed, ""]]).encode()
    message = Message(Kind.JOB, 4, body=struct.pack("<I", len(job_settings)) + job_settings)
    with pytest.raises(ProtocolError, match="not the settings of a job"):
        read_job(message)


@given(st.binary(max_size=10))
@example(b"")
@example(b"\xff\xffname")
def test_a_submission_without_a_name_is_refused(body: bytes) -> None:
    try:
        _, _, payload_at = read_submit(Message(Kind.SUBMIT, body=body))
        assert 6 <= payload_at <= len(body)
    except ProtocolError:
        if len(body) >= 6:
            name_length, terms_length = struct.unpack_from("<HI", body)
            assert terms_length or len(body) < 6 + name_length


@given(st.booleans(), st.booleans())
def test_the_descriptors_of_a_worker_keep_their_meaning(captures: bool, starts: bool) -> None:
    fds = WorkerFds(3, 4, 5, (6, 7) if captures else None, 8 if starts else None)
    assert WorkerFds.of_flat(fds.flat(), captures=captures) == fds
    for wrong in ((), (3, 4), tuple(range(10))):
        with pytest.raises(ValueError, match="descriptors for a worker"):
            WorkerFds.of_flat(wrong, captures=captures)


@given(st.integers(0, (1 << 64) - 1), st.text())
def test_the_status_that_a_worker_writes_is_read(job: int, phase: str) -> None:
    fd = make_status()
    try:
        page = StatusPage(fd)
        assert read_status(fd).job == 0
        page.begin(job)
        before = read_status(fd)
        assert (before.job, before.phase) == (job, "")
        page.set_phase(phase)
        after = read_status(fd)
        data = phase.encode(errors="replace")[:100].decode(errors="ignore")
        assert after.phase.startswith(data)
        assert after.phase_since >= after.since == before.since > 0
        page.begin(job)
        assert read_status(fd).phase == ""
    finally:
        os.close(fd)


@given(st.lists(st.integers(1, 1 << 22)), st.lists(st.integers(1, 1 << 22)))
def test_so_is_what_jobs_have_left_as_far_as_there_is_room(
    threads: list[int], processes: list[int]
) -> None:
    fd = make_status()
    try:
        page = StatusPage(fd)
        page.set_left(threads, processes)
        page.begin(1)
        status = read_status(fd)
        assert status.threads == tuple(threads[:MAX_LEFT])
        assert status.processes == tuple(processes[: MAX_LEFT - len(status.threads)])
        assert not status.is_tearing_down
        page.ended[0] = time.monotonic() - 3 * LONG_TEARDOWN_S
        assert read_status(fd).is_tearing_down
        page.ended[0] = 0.0
        assert not read_status(fd).ended
    finally:
        os.close(fd)


@given(st.binary(max_size=600))
def test_garbage_in_the_status_is_read_as_something(garbage: bytes) -> None:
    fd = make_status()
    try:
        os.pwrite(fd, garbage, 0)
        status = read_status(fd)
        assert math.isfinite(status.since)
        assert math.isfinite(status.phase_since)
    finally:
        os.close(fd)
