"""The preload module of a pool for Helion: the fork server loads once what each job needs."""

from __future__ import annotations

import contextlib
import os

from compilepool.linux.spawn import is_pool_process


def _load() -> None:
    # Helion prints while it is imported, and what the fork server prints is the program's output.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        import triton.compiler  # noqa: F401
    from triton.backends import backends
    from triton.runtime.cache import triton_key

    triton_key()  # hashes Triton itself, of 500 MB; every compilation needs the hash
    for backend in backends.values():
        backend.compiler  # noqa: B018


if is_pool_process():  # elsewhere, importing this module has no effect
    _load()
