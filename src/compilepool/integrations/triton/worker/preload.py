"""The preload module of a pool for Triton: the fork server loads once what each kernel needs."""

from __future__ import annotations

from compilepool.linux.spawn import is_pool_process


def _load() -> None:
    from triton.runtime.cache import triton_key

    from compilepool.integrations.triton import recipe  # noqa: F401 - which compile_job imports
    from compilepool.integrations.triton.worker.phases import report_stages

    triton_key()  # hashes Triton itself, of 500 MB; every compilation needs the hash
    report_stages()


if is_pool_process():  # elsewhere, importing this module has no effect
    _load()
