"""What crosses process borders: every packet and payload, whole or broken, is read or refused."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool.wire.channel import Channel, Outbox, close_all
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import (
    MAX_BODY,
    MAX_FDS,
    MAX_PACKET,
    Form,
    Kind,
    Message,
    ProtocolError,
    decode,
    encode,
    json_message,
    read_json,
    text_message,
)
from compilepool.wire.payloads import INLINE_LIMIT, Payload, Unpacked, of_message, pack
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.serializers import dump, dump_payload, load_payload
from compilepool.wire.spares import Spares
from compilepool.wire.status_page import StatusPage, make_status, read_status
from compilepool.wire.submission import DEFAULT_TERMS, read_submit, submit_message
from compilepool.wire.usage import Usage
from compilepool.wire.worker_start import WorkerFds

ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def messages(max_fds: int = 4) -> st.SearchStrategy[Message]:
    """Messages whose descriptors are numbers that no process has open."""
    return st.builds(
        Message,
        st.sampled_from(Kind),
        st.integers(0, 2**64 - 1),
        st.integers(0, 255),
        st.sampled_from(Form),
        st.binary(max_size=200),
        st.lists(st.integers(10**6, 10**6 + 99), max_size=max_fds).map(tuple),
    )


def sections() -> st.SearchStrategy[list[list[bytes]]]:
    """Sections of pieces, some empty, some longer than the alignment or a page."""
    piece = st.one_of(
        st.binary(max_size=100),
        st.builds(lambda data, times: data * times, st.binary(max_size=7), st.integers(0, 2000)),
    )
    return st.lists(st.lists(piece, max_size=4), min_size=1, max_size=5)


@contextlib.contextmanager
def closed(*fds: int) -> Iterator[None]:
    try:
        yield
    finally:
        close_all(fds)


def memfd(content: bytes, seals: int = ALL_SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def sparse_memfd(head: bytes, size: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, head)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def unpack(payload: Payload) -> list[bytes]:
    with Unpacked(payload) as unpacked:
        return [bytes(unpacked.stream), *map(bytes, unpacked.buffers)]


# Messages


@given(st.lists(messages(), max_size=5))
def test_what_is_encoded_is_decoded(sent: list[Message]) -> None:
    packet = b"".join(map(encode, sent))
    assert decode(packet, [fd for message in sent for fd in message.fds]) == sent


@given(st.binary(max_size=300), st.lists(st.integers(10**6, 10**6 + 9), max_size=3))
@example(b"\0" * 16, [])
@example(b"\xff" * 16, [])
def test_arbitrary_bytes_are_decoded_or_refused(packet: bytes, fds: list[int]) -> None:
    with contextlib.suppress(ProtocolError):
        received = decode(packet, fds)
        assert b"".join(map(encode, received)) == packet
        assert [fd for message in received for fd in message.fds] == fds


@given(st.lists(messages(), min_size=1, max_size=3), st.data())
def test_a_mutated_packet_is_decoded_or_refused(sent: list[Message], data: st.DataObject) -> None:
    packet = bytearray(b"".join(map(encode, sent)))
    fds = [fd for message in sent for fd in message.fds]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(packet) - 1)))
        mutation = data.draw(st.sampled_from(["flip", "cut", "insert", "lose fd", "add fd"]))
        if mutation == "flip":
            packet[at] ^= data.draw(st.integers(1, 255))
        elif mutation == "cut":
            del packet[at : at + data.draw(st.integers(0, 20))]
        elif mutation == "insert":
            packet[at:at] = data.draw(st.binary(max_size=20))
        elif mutation == "lose fd":
            fds = fds[:-1]
        else:
            fds = [*fds, 10**6]
        if not packet:
            break
    with contextlib.suppress(ProtocolError):
        received = decode(bytes(packet), fds)
        assert [fd for message in received for fd in message.fds] == fds


@pytest.mark.parametrize("cut", [1, 15, 16, 19])
def test_a_truncated_message_is_refused(cut: int) -> None:
    packet = encode(Message(Kind.LOGGED, body=b"abcd"))
    with pytest.raises(ProtocolError, match="truncated"):
        decode(packet[:cut])


def test_descriptors_that_nobody_announced_are_refused() -> None:
    with pytest.raises(ProtocolError, match="belong to no message"):
        decode(encode(Message(Kind.READY)), [10**6])


def test_announced_descriptors_that_did_not_come_are_refused() -> None:
    with pytest.raises(ProtocolError, match="truncated"):
        decode(encode(Message(Kind.READY, fds=(10**6,))))


@pytest.mark.parametrize("at", [4, 6], ids=["kind", "form"])
def test_an_unknown_kind_or_form_is_refused(at: int) -> None:
    packet = bytearray(encode(Message(Kind.READY)))
    packet[at] = 255
    with pytest.raises(ProtocolError, match="unknown"):
        decode(bytes(packet))


@pytest.mark.parametrize(
    "message",
    [
        Message(Kind.RESULT, body=bytes(MAX_BODY + 1)),
        Message(Kind.RESULT, fds=tuple(range(MAX_FDS + 1))),
    ],
    ids=["body", "descriptors"],
)
def test_a_message_that_no_packet_holds_cannot_be_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match="too large"):
        encode(message)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=50), max_size=4))
def test_json_bodies_arrive(body: dict[str, str]) -> None:
    assert read_json(json_message(Kind.FAILED, body).body) == body


@pytest.mark.parametrize("text", ["x", "\0", "\N{SNOWMAN}", "\N{PILE OF POO}", "\udc80"])
def test_texts_of_any_length_fit_a_packet(text: str) -> None:
    encode(text_message(Kind.LOGGED, text * MAX_PACKET))
    message = json_message(Kind.FAILED, {"text": text * MAX_PACKET, "exitcode": -11})
    encode(message)
    body = read_json(message.body)
    assert body["exitcode"] == -11
    assert body["text"].startswith(text * 100)


@given(st.binary(max_size=50))
@example(b"[]")
@example(b"{")
@example(b"\xff")
@example(b"[" * MAX_BODY)
@example(b"1" * 5000)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(read_json(body), dict)


# Payloads


@given(sections(), st.sampled_from([-1, 0, 64, 1000, INLINE_LIMIT]))
@settings(max_examples=60)
def test_what_is_packed_is_unpacked_in_every_form(
    content: list[list[bytes]], inline_limit: int
) -> None:
    expected = [b"".join(pieces) for pieces in content]
    payload = pack(content, inline_limit=inline_limit)
    if payload.is_inline:
        assert len(payload.body) <= inline_limit
    message = payload.message(Kind.JOB, 7)
    assert unpack(of_message(message)) == expected
    assert payload.fd < 0 or not is_open(payload.fd)


@given(sections())
@settings(max_examples=30)
def test_a_spilled_payload_is_what_it_was(content: list[list[bytes]]) -> None:
    expected = [b"".join(pieces) for pieces in content]
    payload = pack(content, inline_limit=-1)
    spilled = payload.spill()
    assert not is_open(payload.fd)
    assert spilled.spill() is spilled
    assert unpack(spilled) == expected
    message = spilled.message(Kind.JOB)
    assert message.form is Form.MEMFD
    assert unpack(of_message(message)) == expected


@pytest.mark.parametrize("pieces", [1, 1023, 1024, 1025, 5000])
def test_any_number_of_pieces_fits_a_memfd(pieces: int) -> None:
    content = [[bytes([i % 256]) * (i % 50) for i in range(pieces)]]
    assert unpack(pack(content, inline_limit=-1)) == [b"".join(content[0])]


def test_pieces_of_wider_items_are_packed_as_their_bytes() -> None:
    wide = memoryview(struct.pack("4i", 1, 2, 3, 4)).cast("i")
    for limit in (-1, INLINE_LIMIT):
        assert unpack(pack([[b"x"], [wide]], inline_limit=limit)) == [b"x", bytes(wide)]


def test_sections_are_aligned_and_buffers_can_be_written_to() -> None:
    payload = pack([[b"x"], [b"y" * 65], [b"z"]])
    for at, byte in ((64, b"x"), (128, b"y"), (256, b"z")):
        assert payload.body[at : at + 1] == byte
    with Unpacked(payload) as unpacked:
        unpacked.buffers[0][0] = 0
        assert bytes(unpacked.buffers[0][:2]) == b"\0y"


def test_only_more_than_the_inline_limit_goes_into_a_memfd() -> None:
    assert pack([[bytes(INLINE_LIMIT)]]).form is Form.INLINE
    payload = pack([[bytes(INLINE_LIMIT + 1)]])
    assert payload.form is Form.MEMFD
    with closed(payload.fd):
        assert not os.get_inheritable(payload.fd)


def layouts() -> st.SearchStrategy[bytes]:
    """Bytes that look like INLINE_MANY or MEMFD, and are not, mostly."""
    length = st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1))
    plausible = st.builds(
        lambda count, lengths, rest: struct.pack(f"<I4x{len(lengths)}Q", count, *lengths) + rest,
        st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
        st.lists(length, max_size=5),
        st.binary(max_size=200),
    )
    return st.one_of(st.binary(max_size=200), plausible)


def assert_unpacked_or_refused(payload: Payload, size: int) -> None:
    with contextlib.suppress(ProtocolError):
        assert sum(map(len, unpack(payload))) <= size
    assert payload.fd < 0 or not is_open(payload.fd)


@given(layouts())
@settings(max_examples=200)
@example(b"")
@example(struct.pack("<I4x", 0))
@example(struct.pack("<I4x", 2**32 - 1))
@example(struct.pack("<I4xQ", 1, 2**64 - 1))
@example(struct.pack("<I4xQQ", 2, 0, 2**64 - 1))
def test_an_arbitrary_layout_is_unpacked_or_refused_in_every_form(data: bytes) -> None:
    assert_unpacked_or_refused(Payload(Form.INLINE_MANY, data), len(data))
    assert_unpacked_or_refused(Payload(Form.MEMFD, data), len(data))
    assert_unpacked_or_refused(Payload(Form.MEMFD, b"", memfd(data)), len(data))


@given(sections(), st.data())
@settings(max_examples=60)
def test_a_truncated_layout_is_refused(content: list[list[bytes]], data: st.DataObject) -> None:
    payload = pack([*content, [b"end"]], inline_limit=1 << 20)
    cut = payload.body[: data.draw(st.integers(0, len(payload.body) - 1))]
    for broken in (Payload(Form.INLINE_MANY, cut), Payload(Form.MEMFD, b"", memfd(cut))):
        with pytest.raises(ProtocolError, match="truncated"):
            unpack(broken)


def open_socket() -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def open_pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def open_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.flush()
        return os.dup(file.fileno())


def open_write_only() -> int:
    fd = memfd(struct.pack("<I4xQ", 1, 4) + bytes(100))
    with closed(fd):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)


def open_larger_than_memory() -> int:
    size = 1 << 60
    return sparse_memfd(struct.pack("<I4xQQ", 2, 0, size - 1024), size)


def open_larger_than_the_address_space() -> int:
    size = 1 << 60
    return sparse_memfd(struct.pack("<I4xQ", 1, size - 1024), size)


STRANGE: list[Callable[[], int]] = [
    open_socket,
    open_pipe,
    open_file,
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.open("/", os.O_PATH),
    lambda: os.open("/dev/zero", os.O_RDONLY),
    lambda: os.pidfd_open(os.getpid()),
    open_write_only,
    open_larger_than_memory,
    open_larger_than_the_address_space,
]
STRANGE_IDS = ["socket", "pipe", "file", "directory", "path", "device", "pidfd"]
STRANGE_IDS += ["write-only", "large buffer", "large stream"]


@pytest.mark.parametrize("make", STRANGE, ids=STRANGE_IDS)
def test_a_descriptor_that_holds_no_payload_is_refused_and_closed(make: Callable[[], int]) -> None:
    fd = make()
    with pytest.raises(ProtocolError):
        unpack(Payload(Form.MEMFD, b"", fd))
    assert not is_open(fd)


@pytest.mark.parametrize("make", STRANGE, ids=STRANGE_IDS)
def test_spilling_any_descriptor_works_or_is_refused_and_closes_it(make: Callable[[], int]) -> None:
    fd = make()
    with contextlib.suppress(ProtocolError):
        Payload(Form.MEMFD, b"", fd).spill()
    assert not is_open(fd)


@pytest.mark.parametrize(
    ("form", "fd_count"),
    [(Form.NONE, 0), (Form.NONE, 1), (Form.INLINE, 1), (Form.MEMFD, 0), (Form.MEMFD, 2)],
)
def test_a_message_with_the_wrong_descriptors_has_no_payload(form: Form, fd_count: int) -> None:
    fds = tuple(memfd(b"") for _ in range(fd_count))
    with pytest.raises(ProtocolError, match="without a proper payload"):
        of_message(Message(Kind.JOB, form=form, fds=fds))
    assert not any(map(is_open, fds))


# Serializers


class Doubled:
    """A serializer that is none of pickle's."""

    def dumps(self, obj: object, /) -> bytes:
        return repr(obj).encode() * 2

    def loads(self, data: bytes, /) -> Any:
        assert data[: len(data) // 2] * 2 == data
        return data[: len(data) // 2].decode()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=100),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(PLAIN)
@settings(max_examples=50)
def test_plain_objects_arrive_equal(value: object) -> None:
    assert load_payload(dump_payload(value)) == value


@given(st.lists(st.binary(max_size=3000), max_size=5))
@settings(max_examples=50)
def test_out_of_band_buffers_arrive_equal_and_can_be_written_to(contents: list[bytes]) -> None:
    sent = [pickle.PickleBuffer(bytearray(content)) for content in contents]
    assert len(dump(sent)) == 1 + len(sent)
    received = load_payload(dump_payload(sent))
    assert [bytes(buffer) for buffer in received] == contents
    for buffer in received:
        assert not memoryview(buffer).readonly


@pytest.mark.parametrize("size", [0, INLINE_LIMIT, INLINE_LIMIT + 1, 1 << 20, (1 << 24) + 7])
def test_large_objects_arrive_equal(size: int) -> None:
    value = {"in band": os.urandom(size), "out of band": pickle.PickleBuffer(bytearray(size))}
    received = load_payload(dump_payload(value))
    assert received["in band"] == value["in band"]
    assert bytes(received["out of band"]) == bytes(size)


def test_what_pickle_cannot_do_goes_by_value() -> None:
    base = 40
    function = load_payload(dump_payload(lambda x: base + x))
    assert function(2) == 42


def test_what_cannot_be_pickled_at_all_says_why() -> None:
    with pytest.raises(TypeError, match="socket"), socket.socket() as unpicklable:
        dump(unpicklable)


def test_a_serializer_of_the_users_replaces_pickle() -> None:
    assert load_payload(dump_payload([1, "a"], Doubled()), Doubled()) == "[1, 'a']"


def test_a_serializer_that_returns_no_bytes_is_refused() -> None:
    class Broken(Doubled):
        def dumps(self, obj: object, /) -> bytes:
            return "text"  # type: ignore[return-value]

    with pytest.raises(TypeError, match="returned str, not bytes"):
        dump(1, Broken())


# Configuration and failures

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
        usage=st.just(Usage(1.0, 2.0, 0.5, 1 << 40, 77, 2, 1 << 41, '[["parse", 1.5]]')),
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


# Submissions, and what a worker is started with


@given(st.text(max_size=300), st.binary(max_size=100))
def test_a_job_arrives_with_its_name(name: str, call: bytes) -> None:
    (message,) = decode(encode(submit_message(3, name, pack([[call]]))))
    told, terms, payload_at = read_submit(message)
    assert terms == DEFAULT_TERMS
    assert told == name[:256].encode(errors="replace").decode()
    with Unpacked(of_message(message, payload_at)) as unpacked:
        assert bytes(unpacked.stream) == call


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


# What a worker does


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


@given(st.binary(max_size=300))
def test_garbage_in_the_status_is_read_as_something(garbage: bytes) -> None:
    fd = make_status()
    try:
        os.pwrite(fd, garbage, 0)
        status = read_status(fd)
        assert math.isfinite(status.since)
        assert math.isfinite(status.phase_since)
    finally:
        os.close(fd)


# Channels


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def receive_all(channel: Channel) -> list[Message]:
    received: list[Message] = []
    while messages := channel.receive(wait=False):
        received += messages
    return received


def test_messages_and_their_descriptors_arrive(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fds = tuple(memfd(bytes([i])) for i in range(MAX_FDS))
    with closed(*fds):
        assert ours.send(Message(Kind.RESULT, 2**64 - 1, 3, Form.INLINE, bytes(MAX_BODY), fds))
    (message,) = theirs.receive() or []
    with closed(*message.fds):
        assert message[:5] == (Kind.RESULT, 2**64 - 1, 3, Form.INLINE, bytes(MAX_BODY))
        assert [os.pread(fd, 1, 0) for fd in message.fds] == [bytes([i]) for i in range(MAX_FDS)]


def test_received_descriptors_are_not_inherited(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fd = memfd(b"")
    with closed(fd):
        os.set_inheritable(fd, True)
        ours.send(Message(Kind.READY, fds=(fd,)))
    (message,) = theirs.receive() or []
    with closed(*message.fds):
        assert not os.get_inheritable(message.fds[0])


def test_an_adopted_channel_is_not_inherited() -> None:
    ours, theirs = Channel.pair()
    os.set_inheritable(theirs.fileno(), True)
    channel = Channel.adopt(theirs.detach())
    assert not os.get_inheritable(channel.fileno())
    channel.close()
    assert ours.receive() is None
    ours.close()


def test_nothing_to_receive_is_not_the_end(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    assert theirs.receive(wait=False) == []
    ours.shutdown_output()
    assert theirs.receive(wait=False) is None
    assert theirs.send(Message(Kind.READY))  # the other direction goes on
    assert ours.receive() == [Message(Kind.READY)]


def test_what_a_dead_peer_had_sent_is_received_before_its_end(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    for i in range(3):
        theirs.send(Message(Kind.RESULT, i))
        ours.send(Message(Kind.JOB, i))
    theirs.close()  # with packets unread: the kernel says ECONNRESET
    assert [message.id for message in receive_all(ours)] == [0, 1, 2]
    assert ours.receive() is None
    with pytest.raises(ConnectionError):
        ours.send(Message(Kind.READY))


@pytest.mark.parametrize("fd_count", [0, 3])
def test_an_oversized_packet_is_refused(pair: tuple[Channel, Channel], fd_count: int) -> None:
    ours, theirs = pair
    fds = tuple(memfd(b"") for _ in range(fd_count))
    with closed(*fds):
        ours.send_packet(bytes(MAX_PACKET + 1), fds, wait=True)
    with pytest.raises(ProtocolError, match="oversized"):
        theirs.receive()
    ours.send(Message(Kind.READY))
    assert theirs.receive() == [Message(Kind.READY)]


def test_more_descriptors_than_any_packet_has_are_refused(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fd = memfd(b"")
    with closed(fd):
        ours.send_packet(encode(Message(Kind.READY)), (fd,) * (MAX_FDS + 2), wait=True)
    with pytest.raises(ProtocolError, match="oversized"):
        theirs.receive()


@given(st.binary(min_size=1, max_size=100), st.integers(0, 3))
@settings(max_examples=50)
def test_a_packet_of_garbage_is_refused_and_its_descriptors_closed(
    packet: bytes, fd_count: int
) -> None:
    ours, other = Channel.pair()
    theirs = Channel(other)
    reader, writer = os.pipe()
    with closed(reader):
        with closed(writer):
            ours.send_packet(packet, (writer,) * fd_count, wait=True)
        try:
            received = theirs.receive() or []
        except ProtocolError:
            received = []
        close_all(fd for message in received for fd in message.fds)
        assert os.read(reader, 1) == b""  # nobody has the other end any more
    ours.close()
    theirs.close()


def test_sending_without_waiting_tells_that_there_is_no_room(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    count = 0
    while ours.send(Message(Kind.RESULT, count, body=bytes(MAX_BODY)), wait=False):
        count += 1
    assert count > 1
    assert [message.id for message in receive_all(theirs)] == list(range(count))


@given(st.lists(st.tuples(st.integers(0, MAX_BODY), st.integers(0, 2)), max_size=60))
@settings(max_examples=30)
@example([(MAX_BODY, 0)] * 40)
@example([(10, 2)] * 60)
@example([(0, 0)] * 60)
def test_an_outbox_keeps_the_order_when_nobody_reads(sizes: list[tuple[int, int]]) -> None:
    ours, other = Channel.pair()
    theirs = Channel(other)
    outbox = Outbox(ours)
    marks: list[int] = []
    for id, (size, fd_count) in enumerate(sizes):
        fds = tuple(memfd(b"%d" % id) for _ in range(fd_count))
        marks += fds
        outbox.put(Message(Kind.RESULT, id, body=bytes(size), fds=fds))
        outbox.flush()
    received: list[Message] = []
    while outbox:
        before = len(received)
        received += receive_all(theirs)
        assert len(received) > before
        outbox.flush()
    assert not any(is_open(fd) for fd in set(marks) - {f for m in received for f in m.fds})
    received += receive_all(theirs)
    assert [message.id for message in received] == list(range(len(sizes)))
    for message, (size, fd_count) in zip(received, sizes, strict=True):
        assert (len(message.body), len(message.fds)) == (size, fd_count)
        assert all(os.pread(fd, 9, 0) == b"%d" % message.id for fd in message.fds)
        close_all(message.fds)
    ours.close()
    theirs.close()


def test_an_outbox_puts_many_small_messages_into_one_packet(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    outbox = Outbox(ours)
    for id in range(100):
        outbox.put(Message(Kind.STARTED, id))
    assert theirs.receive(wait=False) == []
    outbox.flush()
    assert not outbox
    assert [message.id for message in theirs.receive() or []] == list(range(100))


def test_an_outbox_that_is_cleared_closes_its_descriptors(pair: tuple[Channel, Channel]) -> None:
    outbox = Outbox(pair[0])
    fds = [memfd(b"") for _ in range(3)]
    for fd in fds:
        outbox.put(Message(Kind.RESULT, fds=(fd,)))
    outbox.clear()
    assert not outbox
    assert not any(map(is_open, fds))


def test_an_outbox_tells_that_the_peer_is_gone(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    outbox = Outbox(ours)
    outbox.put(Message(Kind.STARTED))
    theirs.close()
    with pytest.raises(ConnectionError):
        outbox.flush()


# Memfds that are written again


def large(byte: bytes, size: int = 100_000) -> list[list[bytes]]:
    return [[byte * size]]


def test_a_memfd_is_written_again_when_it_has_been_read() -> None:
    with contextlib.closing(Spares(2)) as spares:
        first = pack(large(b"x"), spares=spares)
        message = first._replace(fd=os.dup(first.fd)).message(Kind.RESULT)
        spares.put(first.fd)
        second = pack(large(b"y"), spares=spares)
        assert second.fd != first.fd, "nobody has read the first"
        second.close()
        with Unpacked(of_message(message), may_be_written_again=True) as unpacked:
            assert bytes(unpacked.stream) == b"x" * 100_000
        third = pack(large(b"z", 70_000), spares=spares)
        assert third.fd == first.fd
        assert unpack(third) == [b"z" * 70_000]


@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_only_so_many_memfds_are_kept_and_no_large_ones(size: int) -> None:
    spares = Spares(2)
    fds = [pack(large(b"x", size), spares=spares).fd for _ in range(4)]
    for fd in fds:
        spares.put(fd)
    kept = [fd for fd in fds if is_open(fd)]
    assert kept == (fds[2:] if size == 100_000 else [])
    spares.close()
    assert not any(is_open(fd) for fd in fds)


def test_a_file_that_has_the_number_of_a_spare_is_left_alone(tmp_path: Path) -> None:
    spares = Spares(2)
    for fd in [pack(large(b"x"), spares=spares).fd for _ in range(2)]:
        spares.put(fd, is_read=True)
        os.close(fd)
        path = tmp_path / str(fd)
        path.write_bytes(b"data of the user's")
        assert os.open(path, os.O_RDWR) == fd
        spares.put(fd, is_read=True)
    assert spares.take() == -1
    spares.close()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == b"data of the user's"
        os.close(int(path.name))


def test_a_forked_child_takes_no_spare() -> None:
    with contextlib.closing(Spares(1)) as spares:
        spares.put(pack(large(b"x"), spares=spares).fd, is_read=True)
        pid = os.fork()
        if pid == 0:
            os._exit(spares.take() != -1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        fd = spares.take()
        assert fd >= 0
        os.close(fd)
