"""The SUBMIT message: what the supervisor is told of a job besides its payload."""

from __future__ import annotations

import struct

from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload

_LENGTH = struct.Struct("<H")
_NAME_LIMIT = 256
"""Characters."""


def submit_message(id: int, name: str, payload: Payload) -> Message:
    """The message for a job; see `Payload.message` for who owns its descriptors."""
    message = payload.message(Kind.SUBMIT, id)
    head = name[:_NAME_LIMIT].encode(errors="replace")
    return message._replace(body=_LENGTH.pack(len(head)) + head + message.body)


def read_submit(message: Message) -> tuple[str, Message]:
    """The job's name, and the message as the payload's alone.

    Raises:
        ProtocolError: there is no name. The caller still owns the descriptors.
    """
    body = message.body
    end = _LENGTH.size + (_LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else 1)
    if len(body) < end:
        raise ProtocolError("SUBMIT without a name")
    name = body[_LENGTH.size : end].decode(errors="replace")
    return name, message._replace(body=body[end:])
