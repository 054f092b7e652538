"""The SUBMIT and the JOB message: a job's name, terms and settings, ahead of its payload."""

from __future__ import annotations

import functools
import math
import struct

from compilepool.light_typing import Any, NamedTuple, TypeAlias
from compilepool.wire.messages import Kind, Message, ProtocolError, all_are, check, parse_json
from compilepool.wire.payloads import Payload

ENV_LIMIT = 32 * 1024
"""The most bytes of the environment variables of one job, as JSON."""

MAX_SEED = (1 << 64) - 1

_LENGTHS = struct.Struct("<HI")  # lengths of name and terms
_SETTINGS_LENGTH = struct.Struct("<I")
_SETTINGS_AT = _SETTINGS_LENGTH.size
_NO_SETTINGS = _SETTINGS_LENGTH.pack(0)
_NAME_LIMIT = 256  # characters
_CACHED = 256  # entries; most jobs of a pool have the same terms


Env: TypeAlias = tuple[tuple[str, str | None], ...]
"""Environment variables and their values; the value None unsets a variable."""


class JobSettings(NamedTuple):
    """What a worker does for one job. The fields are as `JobTerms` has them."""

    env: Env = ()
    seed: int | None = None
    authkey: str = ""


DEFAULT_SETTINGS = JobSettings()


class JobTerms(NamedTuple):
    """The limits and the scheduling of a job.

    Attributes:
        timeout_s: the seconds that the job may run; None means no limit.
        memory_limit: the bytes of memory that the job may take; None means no limit.
        expected_memory: the bytes of memory that the job will probably take; None means what
            similar jobs took before.
        retries: how often the job may run again after its worker was killed from outside.
        priority: a job with a higher priority starts earlier.
        key: the identity of the job: jobs with the same key count as one; empty if the job is
            unique.
        env: the environment variables that the job changes; the value None unsets one.
        seed: what random number generators start from, 0 to 2**64-1; None: go on as they are.
        authkey: the client's key of `multiprocessing`, in hexadecimal digits; empty: as in the
            pool's configuration.
        flight: what the job has in common with those that may share its run, as a digest; empty if
            it has a run of its own.
    """

    timeout_s: float | None = None
    memory_limit: int | None = None
    expected_memory: int | None = None
    retries: int = 0
    priority: int = 0
    key: str = ""
    env: Env = ()
    seed: int | None = None
    authkey: str = ""
    flight: str = ""

    @property
    def settings(self) -> JobSettings:
        """What the job's worker gets of these terms."""
        return JobSettings(self.env, self.seed, self.authkey)

    @property
    def is_watched(self) -> bool:
        """Whether the job has a limit that must be enforced while it runs."""
        return self.timeout_s is not None or self.memory_limit is not None


DEFAULT_TERMS = JobTerms()


def submit_message(
    id: int, name: str, payload: Payload, terms: JobTerms = DEFAULT_TERMS
) -> Message:
    """The SUBMIT message for a job; see `Payload.message` for the ownership of descriptors."""
    head = name[:_NAME_LIMIT].encode(errors="replace")
    terms_json = b"" if terms is DEFAULT_TERMS else _terms_as_json(terms)
    head = _LENGTHS.pack(len(head), len(terms_json)) + head + terms_json
    return payload.message(Kind.SUBMIT, id, head=head)


def read_submit(message: Message) -> tuple[str, JobTerms, int]:
    """Parse a SUBMIT message.

    Returns:
        The job's name, its terms, and the offset in the body at which the payload begins.

    Raises:
        ProtocolError: the name or the terms are missing or invalid. The caller still owns the
            descriptors.
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
    """The JOB message for a worker; see `Payload.message` for the ownership of descriptors."""
    settings = settings_as_json(terms)
    head = _SETTINGS_LENGTH.pack(len(settings)) + settings
    return payload.message(Kind.JOB, id, head=head)


def read_job(message: Message) -> tuple[JobSettings, int]:
    """Parse a JOB message.

    Returns:
        The settings of the job, and the offset in the body at which the payload begins.

    Raises:
        ProtocolError: the settings are missing or invalid. The caller still owns the descriptors.
    """
    body = message.body
    if body.startswith(_NO_SETTINGS):
        return DEFAULT_SETTINGS, _SETTINGS_AT
    length = _SETTINGS_LENGTH.unpack_from(body)[0] if len(body) >= _SETTINGS_AT else 1
    end = _SETTINGS_AT + length
    if len(body) < end:
        raise ProtocolError("JOB without settings")
    return _settings_of_json(body[_SETTINGS_AT:end]), end


@functools.lru_cache(_CACHED)
def env_as_json(env: Env) -> bytes:
    """A job's environment variables as they are sent. The caller checks that they fit `ENV_LIMIT`.

    A variable need not be valid Unicode: `os.environ` has surrogates for other bytes (PEP 383), and
    JSON keeps them.
    """
    import json

    return json.dumps(env).encode()


def settings_as_json(terms: JobTerms) -> bytes:
    """A job's settings as they are sent to its worker; empty if they are the default."""
    return b"" if terms is DEFAULT_TERMS else _settings_as_json(terms.settings)


@functools.lru_cache(_CACHED)
def _settings_as_json(settings: JobSettings) -> bytes:
    if settings == DEFAULT_SETTINGS:
        return b""
    import json

    rest = json.dumps([settings.seed, settings.authkey]).encode()
    return b"[%b,%b]" % (env_as_json(settings.env), rest)


@functools.lru_cache(_CACHED)
def _settings_of_json(data: bytes) -> JobSettings:
    return parse_json(data, _settings_of_values, "the settings of a job")


def _settings_of_values(values: list[Any]) -> JobSettings:
    pairs, [seed, authkey] = values
    settings = JobSettings(tuple((str(name), value) for name, value in pairs), seed, authkey)
    check(_are_valid(settings))
    return settings


@functools.lru_cache(_CACHED)
def _terms_as_json(terms: JobTerms) -> bytes:
    import json

    return json.dumps(terms._asdict()).encode()


@functools.lru_cache(_CACHED)
def _terms_of_json(data: bytes) -> JobTerms:
    return parse_json(data, _terms_of_fields, "the terms of a job")


def _terms_of_fields(fields: dict[str, Any]) -> JobTerms:
    env = tuple((name, value) for name, value in fields["env"])
    terms = JobTerms(**{**fields, "env": env})
    amounts = (terms.memory_limit, terms.expected_memory)
    check(
        (terms.timeout_s is None or _is_positive(terms.timeout_s))
        and all(amount is None or (_is_int(amount) and amount > 0) for amount in amounts)
        and _is_int(terms.retries)
        and terms.retries >= 0
        and _is_int(terms.priority)
        and all_are(str, terms.key, terms.flight)
        and _are_valid(terms.settings)
    )
    return terms


def _are_valid(settings: JobSettings) -> bool:
    env, seed, authkey = settings
    return (
        all(isinstance(name, str) and isinstance(value, str | None) for name, value in env)
        and (seed is None or (_is_int(seed) and 0 <= seed <= MAX_SEED))
        and isinstance(authkey, str)
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )
