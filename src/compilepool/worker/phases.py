"""`report_phase`: a job says what it does just now."""

from __future__ import annotations

from compilepool.wire.status import StatusPage

_page: StatusPage | None = None


def report_phase(name: str) -> None:
    """Say, inside a job, what the job does from now on: "parse", "ptxas".

    Crash reports, `CompilePool.dump` and errors show the phase, and for how long it had lasted.
    Costs no system call. Outside of a job it does nothing, so a compiler can call it always.

    Args:
        name: the phase, in a few words; what is beyond some 100 bytes is cut.

    Raises:
        TypeError: `name` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"report_phase needs a str, not {name!r}")
    if _page is not None:
        _page.set_phase(name)


def report_on(page: StatusPage) -> None:
    """From now on, phases are written to the page: this process is a worker."""
    global _page  # noqa: PLW0603 - a fact about the process as a whole
    _page = page
