"""`report_phase` of torch/_inductor/compile_worker/watchdog.py, which torch has from 2.14 on."""

from __future__ import annotations

from enum import IntEnum

import compilepool


class Phase(IntEnum):
    """The phases of a worker, with torch's numbers."""

    RUNNING = 0
    QUERYING_CACHE = 1
    COMPILING = 2


_NAMES = {"querying_cache": "cache look-up", "compiling": "compile"}


def report_phase(phase: IntEnum) -> None:
    """Report the phase of the running job from now on. Outside of a job, this does nothing.

    Args:
        phase: a `Phase` of this module or of torch's.
    """
    name = phase.name.lower()
    compilepool.report_phase(_NAMES.get(name, name.replace("_", " ")))
