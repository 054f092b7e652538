"""What `CompilePool.dump` returns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future

from compilepool.wire.light_typing import TYPE_CHECKING, Any
from compilepool.wire.messages import Kind, Message
from compilepool.wire.native_report import ChildProcess, NativeReport, native_traceback
from compilepool.wire.text import printable

if TYPE_CHECKING:  # they need what other platforms lack, and this module is imported there
    from compilepool.client.future import CompileFuture
    from compilepool.client.jobs import JobTable
    from compilepool.wire.snapshot import JobSnapshot

_STATES = {
    "queued": "waits: no worker has begun it",
    "running": "runs",
    "ended": "has ended",
}


@dataclasses.dataclass(frozen=True)
class JobDump:
    """What a job does at one moment. `str()` tells all of it, as a terminal may be shown it.

    Attributes:
        job: the job's name.
        state: "queued", "running" or "ended"; in the first and the last there is nothing more.
        run_s: for how long it has run, in seconds.
        phase: what the job says that it does, by `report_phase`; empty if nothing.
        phase_s: for how long, in seconds.
        python_traceback: of all Python threads of its worker.
        native_traceback: of all threads of its worker, the main one first.
        children: the processes that it has started, and those below them.
        log: the end of its output until now.
        missing: what could not be found out, why, and what would allow it.
    """

    job: str
    state: str
    run_s: float = 0.0
    phase: str = ""
    phase_s: float = 0.0
    python_traceback: str = ""
    native_traceback: str = ""
    children: tuple[ChildProcess, ...] = ()
    log: str = ""
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"job {self.job!r} {_STATES.get(self.state, self.state)}"]
        if self.state == "running":
            phase = f", in phase {self.phase!r} for {self.phase_s:.3g} s" if self.phase else ""
            lines[0] += f", for {self.run_s:.3g} s{phase}"
        lines += _part("Children", "\n".join(map(_child, self.children)))
        lines += _part("Python stacks", self.python_traceback)
        lines += _part("Native stacks", self.native_traceback)
        lines += _part("Output", self.log)
        lines += _part("Missing", "\n".join(self.missing))
        return printable("\n".join(lines), keeps_newlines=True)


class Dumps:
    """Asks the supervisor what jobs do.

    Args:
        jobs: the jobs of the pool.
        send: sends a message to the supervisor; called under the lock of `jobs`.
    """

    def __init__(self, jobs: JobTable, send: Callable[[Message], object]) -> None:
        self._jobs = jobs
        self._send = send
        self._expected: dict[int, _Answer] = {}
        self._late: set[int] = set()
        """The jobs of which an answer may still come that nobody waits for any more."""

    def dump(self, future: CompileFuture[Any], timeout_s: float) -> JobDump:
        """What a job does just now.

        Raises:
            ValueError: it is none of this pool's.
            TimeoutError: the supervisor did not tell in time.
        """
        try:
            name = self._jobs.name_of(future)
        except TypeError:  # it is no future at all
            name = None
        if name is None:
            raise ValueError("this future is of no job of this pool; ask the pool that made it")
        deadline = time.monotonic() + timeout_s
        snapshot = None
        while snapshot is None:  # else what was told may be of long ago
            with self._jobs.lock:
                id = self._jobs.id_of(future)
                if id is None:
                    return JobDump(name, "ended")
                answer = self._expected.setdefault(id, _Answer())
                answer.waiters += 1
                self._send(Message(Kind.DUMP, id))
            try:
                snapshot = answer.future.result(deadline - time.monotonic())
            except TimeoutError:
                raise TimeoutError(
                    f"nothing was heard of job {name!r} within {timeout_s:g} s; its supervisor may"
                    " be stopped, or has just been replaced: try again"
                ) from None
            finally:
                self._give_up(id, answer)
        return _dump_of(snapshot, name)

    def told(self, id: int, snapshot: JobSnapshot) -> None:
        """The supervisor has told."""
        with self._jobs.lock:
            is_old = id in self._late and snapshot.state != "ended"
            self._late.discard(id)
            answer = self._expected.pop(id, None)
        if answer is not None:
            answer.future.set_result(None if is_old else snapshot)

    def ended(self, snapshot: JobSnapshot) -> None:
        """There is no supervisor any more, that could tell."""
        self._late.clear()
        for id in list(self._expected):
            self.told(id, snapshot)

    def _give_up(self, id: int, answer: _Answer) -> None:
        """One who waited does not any more."""
        with self._jobs.lock:
            answer.waiters -= 1
            if answer.waiters == 0 and self._expected.get(id) is answer:
                del self._expected[id]
                self._late.add(id)


class _Answer:
    """What the supervisor is to tell of a job, and how many wait for it."""

    def __init__(self) -> None:
        self.future: Future[JobSnapshot | None] = Future()
        """Its result is None if what was told answers who has given up."""
        self.waiters = 0


def _dump_of(snapshot: JobSnapshot, job: str) -> JobDump:
    report = NativeReport.of_lines(snapshot.native.encode())
    return JobDump(
        job,
        snapshot.state,
        snapshot.run_s,
        snapshot.phase,
        snapshot.phase_s,
        snapshot.text,
        native_traceback(report),
        tuple(report.children),
        snapshot.log,
        tuple(report.missing),
    )


def _child(child: ChildProcess) -> str:
    return (
        f"{child.pid} (below {child.parent_pid}) {child.command}"
        f" [state {child.state}, {child.age_s:.3g} s old, {child.cpu_s:.3g} s of CPU]"
    )


def _part(title: str, text: str) -> list[str]:
    if not text.strip():
        return []
    return ["", f"{title}:", *(f"  {line}".rstrip() for line in text.rstrip().split("\n"))]
