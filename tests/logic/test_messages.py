"""Packets of messages: whole or broken, each is read or refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
