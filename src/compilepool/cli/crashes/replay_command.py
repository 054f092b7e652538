"""`compilepool replay`: runs a crashed job again, and says whether it crashes the same way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from compilepool.client.crashes.crash_folder import default_root
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.client.crashes.versions import versions
from compilepool.client.replay import debug, replay
from compilepool.client.reports.errors import report_text
from compilepool.errors import CompilePoolError, RemoteTraceback, WorkerCrashed
from compilepool.text import name_of_end, printable


def replay_crash(name: str, *, gdb: bool) -> bool:
    """Run the job of a crash folder again, and print how it ends.

    Args:
        name: the path of the folder, or its name in the default crash root.
        gdb: become gdb, which runs the job.

    Returns:
        Whether the job crashed the same way.

    Raises:
        ValueError: the folder cannot be replayed.
        OSError: gdb is not installed, or cannot be run.
        CompilePoolError: the pool could not be started.
    """
    with KeptCrash.open(_find(name)) as crash:
        for line in _introduction(crash):
            _tell(line)
        if gdb:
            debug(crash, _tell)
        future = replay(crash, _tell)
        try:
            error = future.exception()
        except BaseException:  # Ctrl-C
            future.cancel()
            raise
        if error is not None:
            print(printable(_text(error), keeps_newlines=True))
        is_same, how = _compare(crash, error)
        print(f"{'reproduced' if is_same else 'not reproduced'}: {how}")
        return is_same


def _tell(line: str) -> None:
    print(printable(line), flush=True)


def _find(name: str) -> Path:
    path = Path(name).absolute()
    return path if path.exists() or "/" in name else default_root() / name


def _introduction(crash: KeptCrash) -> Iterator[str]:
    place = f" in {crash.place}" if crash.place else ""
    yield (
        f"replaying job {crash.job!r}, which ended with {crash.ending}{place} on {crash.local_time}"
    )
    if crash.report.get("signal") == signal.SIGKILL:
        why = "" if crash.report.get("is_out_of_memory") else "maybe "
        yield (
            f"careful: it was killed, {why}because memory ran out; a replay has no limit of memory"
            " but those of the shell it runs in (`ulimit -v`)"
        )
    then = crash.report.get("versions")
    now = versions(crash.config().sys_path)
    for subject, version in (then if isinstance(then, dict) else {}).items():
        if not _is_same(subject, version, now.get(subject)):
            yield f"differs now: {subject} {now.get(subject, 'is gone')}, was {version}"


def _is_same(subject: str, then: object, now: str | None) -> bool:
    if subject == "executable" and now is not None:
        # Links to an interpreter, as virtual environments have them, are no other one.
        return os.path.realpath(str(then)) == os.path.realpath(now)
    return then == now


def _text(error: BaseException) -> str:
    """Return everything that is known of the error."""
    parts = [report_text(error)] if isinstance(error, CompilePoolError) else []
    if isinstance(error.__cause__, RemoteTraceback):
        parts.append(error.__cause__.text)
    return "\n".join(part.rstrip() for part in parts or [str(error)])


def _compare(crash: KeptCrash, error: BaseException | None) -> tuple[bool, str]:
    """Whether a replay has ended as the crash did, and a sentence that says so."""
    if isinstance(error, WorkerCrashed):
        now = name_of_end(error.signal, error.exitcode)
        if now == crash.ending:
            return True, f"it ended with {now} again"
        return False, f"it ended with {now}, and not with {crash.ending}"
    if error is None:
        return False, "it returned"
    return False, f"it raised {type(error).__name__}"
