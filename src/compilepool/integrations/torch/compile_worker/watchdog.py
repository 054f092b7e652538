"""`report_phase`, as torch/_inductor/compile_worker/watchdog.py has it from torch 2.14 on."""

from __future__ import annotations

from enum import IntEnum

import compilepool


class Phase(IntEnum):
    """What a worker does. The numbers are torch's."""

    RUNNING = 0
    QUERYING_CACHE = 1
    COMPILING = 2


_NAMES = {"querying_cache": "cache look-up", "compiling": "compile"}


def report_phase(phase: IntEnum) -> None:
    """Say, inside a job, what it does from now on; outside of one, nothing happens.

    Args:
        phase: a `Phase`, or one of torch's.
    """
    name = phase.name.lower()
    compilepool.report_phase(_NAMES.get(name, name.replace("_", " ")))
