"""Crashed jobs for the tests of crash folders, made by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compilepool.client.connection.setup import PoolSetup
from compilepool.client.crashes.crash_folder import CrashedJob, keep
from compilepool.client.options import PoolOptions
from compilepool.client.session.packing import pack_call, pack_startup
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from compilepool.wire.serializers import Serializer


def options(
    *,
    start_method: str = "fork",
    preload: Sequence[str] = (),
    initializer: Callable[..., object] | None = None,
    initargs: Sequence[Any] = (),
    serializer: Serializer | None = None,
) -> PoolOptions:
    """The options of a pool with one worker."""
    return PoolOptions(
        max_workers=1,
        preload=preload,
        initializer=initializer,
        initargs=initargs,
        start_method=start_method,
        serializer=serializer,
    )


def crashed_job(
    name: str,
    call: Payload,
    *,
    startup: Payload | None = None,
    of: PoolOptions | None = None,
    env: Mapping[str, str] | None = None,
    report: Mapping[str, Any] | None = None,
) -> CrashedJob:
    """A job of a pool that this process could have made."""
    return CrashedJob(
        name=name,
        call=call,
        startup=startup,
        config=PoolSetup(options() if of is None else of).config,
        env=dict(os.environ) if env is None else env,
        report={"signal": int(signal.SIGSEGV), "exitcode": None} if report is None else report,
        text="what has happened",
    )


def keep_call(
    root: Path,
    function: Callable[..., object],
    *arguments: object,
    name: str = "softmax",
    of: PoolOptions | None = None,
    env: Mapping[str, str] | None = None,
    report: Mapping[str, Any] | None = None,
) -> Path:
    """The crash folder of a call."""
    pool = options() if of is None else of
    call = pack_call(name, function, arguments, {}, pool.serializer)
    startup = pack_startup(pool)
    try:
        job = crashed_job(name, call, startup=startup, of=pool, env=env, report=report)
        return keep(job, root)
    finally:
        call.close()
        if startup is not None:
            startup.close()


INLINE = Payload(Form.INLINE, b"call")


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}
