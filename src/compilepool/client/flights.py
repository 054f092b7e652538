"""The flight of a job: all that decides what it returns, or how it fails, as a digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from compilepool.client.connection.process_variables import FOLDERS
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import Env, JobTerms

_CHUNK = 1 << 20  # bytes


def with_flight(terms: JobTerms, key: str | None, payload: Payload) -> JobTerms:
    """The terms of a job that shares its run with others of the same flight.

    Limits, retries and environment are part of the flight: a job with other limits may fail where
    this one does not. The priority is not.

    Args:
        terms: the job's terms.
        key: what the job has in common with those others; None: the pickled call.
        payload: the pickled call, which stays open.
    """
    own = repr(terms._replace(priority=0, expected_memory=None, authkey="", flight=""))
    digest = digest_of(payload, own) if key is None else digest_of(None, own, key)
    return terms._replace(flight=digest)


def with_folders(flight: str, own_env: Env, env: Env) -> str:
    """The flight of a job that its own process sends to a shared pool.

    Args:
        flight: the flight so far.
        own_env: the variables that name this process, see `process_variables.py`.
        env: the job's other variables, which are part of its flight so far, and prevail.
    """
    prevailing = {name for name, _ in env}
    folders = [each for each in own_env if each[0] in FOLDERS and each[0] not in prevailing]
    return digest_of(None, flight, repr(sorted(folders)))


def digest_of(payload: Payload | None, *texts: str) -> str:
    """A digest of a payload's bytes, if there is one, and of texts, as hexadecimal digits."""
    digest = hashlib.sha256()
    for text in (*texts, "" if payload is None else payload.form.name):
        part = text.encode(errors="surrogatepass")
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    for chunk in () if payload is None else _chunks(payload):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(payload: Payload) -> Iterator[bytes]:
    yield payload.body
    at = 0
    while payload.fd >= 0 and (chunk := os.pread(payload.fd, _CHUNK, at)):
        if at == 0:  # the bytes in which `spares` notes that the payload was read
            chunk = chunk[:4] + bytes(4) + chunk[8:]
        at += len(chunk)
        yield chunk
