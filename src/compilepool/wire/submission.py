"""The SUBMIT and the JOB message: what is told of a job besides its payload."""

from __future__ import annotations

import functools
import math
import struct

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload

ENV_LIMIT = 32 * 1024
"""Bytes that the environment variables of one job may take."""

_LENGTHS = struct.Struct("<HI")  # of name and terms
_ENV_LENGTH = struct.Struct("<I")
_ENV_AT = _ENV_LENGTH.size
_NO_ENV = _ENV_LENGTH.pack(0)
_NAME_LIMIT = 256  # characters
_CACHED = 256  # terms: most jobs of a pool have the same


class JobTerms(NamedTuple):
    """How a job is to be treated, and what it may take.

    Attributes:
        timeout_s: for how long it may run, in seconds; None: without limit.
        memory_limit: how many bytes it may take; None: without limit.
        expected_memory: how many bytes it will probably take; None: what such jobs took before.
        retries: how often it may run again after a death that was not its own doing.
        priority: those with a higher one go first.
        key: which jobs are the same; "" if it is like no other.
        env: the environment variables that differ for it; None: unset.
    """

    timeout_s: float | None = None
    memory_limit: int | None = None
    expected_memory: int | None = None
    retries: int = 0
    priority: int = 0
    key: str = ""
    env: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_watched(self) -> bool:
        """Whether it has a limit that must be enforced while it runs."""
        return self.timeout_s is not None or self.memory_limit is not None

    def _is_valid(self) -> bool:
        amounts = (self.memory_limit, self.expected_memory)
        return (
            (self.timeout_s is None or _is_positive(self.timeout_s))
            and all(amount is None or (_is_int(amount) and amount > 0) for amount in amounts)
            and _is_int(self.retries)
            and self.retries >= 0
            and _is_int(self.priority)
            and isinstance(self.key, str)
            and all(
                isinstance(name, str) and isinstance(value, str | None) for name, value in self.env
            )
        )


DEFAULT_TERMS = JobTerms()


def submit_message(
    id: int, name: str, payload: Payload, terms: JobTerms = DEFAULT_TERMS
) -> Message:
    """The message for a job; see `Payload.message` for who owns its descriptors."""
    head = name[:_NAME_LIMIT].encode(errors="replace")
    told = b"" if terms is DEFAULT_TERMS else _terms_as_json(terms)
    head = _LENGTHS.pack(len(head), len(told)) + head + told
    return payload.message(Kind.SUBMIT, id, head=head)


def read_submit(message: Message) -> tuple[str, JobTerms, int]:
    """The job's name and terms, and where in the body the payload begins.

    Raises:
        ProtocolError: there is no name, or no terms. The caller still owns the descriptors.
    """
    body = message.body
    if len(body) < _LENGTHS.size:
        raise ProtocolError("SUBMIT without a name")
    name_length, terms_length = _LENGTHS.unpack_from(body)
    name_end = _LENGTHS.size + name_length
    end = name_end + terms_length
    if len(body) < end:
        raise ProtocolError("SUBMIT without a name")
    terms = _terms_of_json(body[name_end:end]) if terms_length else DEFAULT_TERMS
    name = body[_LENGTHS.size : name_end].decode(errors="replace")
    return name, terms, end


def job_message(id: int, terms: JobTerms, payload: Payload) -> Message:
    """What a worker is told of a job; see `Payload.message` for who owns its descriptors."""
    if not terms.env:
        return payload.message(Kind.JOB, id, head=_NO_ENV)
    env = env_as_json(terms.env)
    return payload.message(Kind.JOB, id, head=_ENV_LENGTH.pack(len(env)) + env)


def read_job(message: Message) -> tuple[tuple[tuple[str, str | None], ...], int]:
    """The environment variables of `JobTerms.env`, and where in the body the payload begins.

    Raises:
        ProtocolError: there are none. The caller still owns the descriptors.
    """
    body = message.body
    if body.startswith(_NO_ENV):
        return (), _ENV_AT
    end = _ENV_AT + (_ENV_LENGTH.unpack_from(body)[0] if len(body) >= _ENV_AT else 1)
    if len(body) < end:
        raise ProtocolError("JOB without an environment")
    env = _env_of_json(body[_ENV_AT:end]) if end > _ENV_AT else ()
    return env, end


@functools.lru_cache(_CACHED)
def env_as_json(env: tuple[tuple[str, str | None], ...]) -> bytes:
    """The environment variables of a job as they are sent, at most `ENV_LIMIT` bytes.

    A variable need not be valid Unicode: the file system's encoding makes surrogates of the rest.
    """
    import json

    return json.dumps(env).encode()


@functools.lru_cache(_CACHED)
def _env_of_json(data: bytes) -> tuple[tuple[str, str | None], ...]:
    import json

    try:
        return tuple((str(name), value) for name, value in json.loads(data))
    except (ValueError, TypeError, RecursionError):
        raise ProtocolError("not the environment of a job") from None


@functools.lru_cache(_CACHED)
def _terms_as_json(terms: JobTerms) -> bytes:
    import json

    return json.dumps(terms._asdict()).encode()


@functools.lru_cache(_CACHED)
def _terms_of_json(data: bytes) -> JobTerms:
    import json

    try:
        fields = json.loads(data)
        terms = JobTerms(**{**fields, "env": tuple((name, value) for name, value in fields["env"])})
        is_valid = terms._is_valid()
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProtocolError("not the terms of a job") from None
    if not is_valid:
        raise ProtocolError("terms of a job with wrong values")
    return terms


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )
