"""`report_phase`, by which a job reports what it is doing. It can be called in any process."""

from __future__ import annotations

import time

from compilepool.wire.status_page import StatusPage

_page: StatusPage | None = None
_phases: list[tuple[str, float]] = []
_MAX_PHASES = 64  # as many as `wire.usage` sends
_MAX_NAME = 100  # bytes


def report_phase(name: str) -> None:
    """Report that the running job enters a phase, such as "parse" or "ptxas".

    Crash reports, `CompilePool.dump`, errors and the progress display show the phase, and how long
    it has lasted. A job's `record`, and traces, have all its phases, up to 64. The call costs no
    system call. It does nothing outside a job, so a compiler can always call it.

    Args:
        name: the phase, in a few words. It is cut to about 100 bytes.

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
    """Return the phases that this process has reported since the last call, and forget them.

    Phases that children of a job report are not among them.

    Returns:
        The name of each phase and the time at which it began, by `time.monotonic()`; the first 64
        phases at most.
    """
    if not _phases:
        return []
    phases = _phases[:]
    _phases.clear()
    return phases


def report_on(page: StatusPage) -> None:
    """Make this process, a worker, write its phases to a status page."""
    global _page  # noqa: PLW0603 - a fact about the process as a whole
    _page = page
