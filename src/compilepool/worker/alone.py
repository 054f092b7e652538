"""Runs one job without a pool, in a process of its own, for `compilepool replay --gdb`.

It handles no signals, so that the debugger stops at the crash.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys

from compilepool.any_process import identity
from compilepool.wire.messages import Form, Outcome
from compilepool.wire.payloads import Payload, Unpacked
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.serializers import load_payload
from compilepool.worker.bootstrap import apply_config, exit_in_order
from compilepool.worker.execution import run_job
from compilepool.worker.main import Startup
from compilepool.worker.main_module import replace_main
from compilepool.worker.random_state import start_anew


def main() -> None:
    """Run one job in this process.

    The arguments are the job's seed, or `-` if it has none, and the descriptors of memfds: the
    configuration, the call, and optionally the startup payload. A debugger may run this program
    several times with the same memfds, so their file offsets must not change.
    """
    payloads = []
    _, seed, *fds = sys.argv
    for fd in map(int, fds):
        os.set_inheritable(fd, False)
        payloads.append(Payload(Form.MEMFD, b"", fd))
    config, call, *startup = payloads
    faulthandler.disable()  # PYTHONFAULTHANDLER may have enabled it
    identity.become_worker_of(os.getppid())
    _run(
        PoolConfig.of_payload(config),
        call,
        startup[0] if startup else None,
        None if seed == "-" else int(seed),
    )
    exit_in_order()


def _run(
    config: PoolConfig, call: Payload, startup_payload: Payload | None, seed: int | None
) -> None:
    apply_config(config)
    replace_main(config.main_file)
    for module in config.preload:
        importlib.import_module(module)
    startup = Startup(None, None, ())
    if startup_payload is not None:
        startup = Startup(*load_payload(startup_payload))
    if startup.initializer is not None:
        startup.initializer(*startup.initargs)
    if seed is not None:
        start_anew(seed)
    outcome, payload = run_job(call, startup.serializer, [])
    with Unpacked(payload) as unpacked:
        if outcome is Outcome.RETURNED:
            print("compilepool: the job has returned, and not crashed")
        else:
            head = json.loads(bytes(unpacked.stream))
            print(f"{head['traceback']}compilepool: the job has raised, and not crashed")
