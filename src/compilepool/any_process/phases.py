"""`report_phase`: a job says what it does just now."""

from __future__ import annotations

import time

from compilepool.wire.status_page import StatusPage

_page: StatusPage | None = None
_phases: list[tuple[str, float]] = []
_MAX_PHASES = 64
_MAX_NAME = 100  # bytes


def report_phase(name: str) -> None:
    """Say, inside a job, what the job does from now on: "parse", "ptxas".

    Crash reports, `CompilePool.dump`, errors and the progress shown tell the phase, and for how
    long it has lasted; a job's `record` and traces have all of them, up to 64. Costs no system
    call. Outside of a job it does nothing, so a compiler can call it always.

    Args:
        name: the phase, in a few words; what is beyond some 100 bytes is cut.

    Raises:
        TypeError: `name` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"report_phase needs a str, not {name!r}")
    if _page is not None:
        _page.set_phase(name)
        if len(_phases) < _MAX_PHASES:
            data = name.encode(errors="replace")[:_MAX_NAME]
            _phases.append((data.decode(errors="ignore"), time.monotonic()))


def take_phases() -> list[tuple[str, float]]:
    """What has been reported since this was called last, each with when that was; the first ones.

    What children of a job report is not among it.
    """
    if not _phases:
        return []
    phases = _phases[:]
    _phases.clear()
    return phases


def report_on(page: StatusPage) -> None:
    """From now on, phases are written to the page: this process is a worker."""
    global _page  # noqa: PLW0603 - a fact about the process as a whole
    _page = page
