"""Runs one program, and judges how it went."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.habits.habit import Launch, load_habits
from tests.habits.jobs import JOBS
from tests.habits.plan import Plan
from tests.habits.report import Entry, read_report
from tests.proc import PATIENCE_S, children, command_line, descendants, is_alive, wait_until

ROOT = Path(__file__).parent.parent.parent
BOUND_S = 60.0
"""How long a program may take. It waits for no future longer than 20 s."""

_BOOT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.habits.program import main
main()
"""
_PR_SET_CHILD_SUBREAPER = 36

KEEPS = bool(os.environ.get("KEEP_HABITS"))

load_habits()


@dataclasses.dataclass
class Verdict:
    """How a program went.

    Attributes:
        plan: what it did.
        faults: what must not be; empty if all is well.
        wall_s: how long it took, in seconds.
        entries: what it has reported.
    """

    plan: Plan
    faults: list[str]
    wall_s: float
    entries: list[Entry]


def run(plan: Plan) -> Verdict:
    """Run the program of a plan, in a temporary folder, and judge it."""
    directory = Path(tempfile.mkdtemp(prefix="habits-"))
    try:
        with _subreaper():
            return _Trial(plan, directory).run()
    finally:
        if KEEPS:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """While it lasts, orphans below this process become its children."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class _Trial:
    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self._habits = plan.chosen()
        self._directory = directory
        self._faults: list[str] = []
        self._entries: list[Entry] = []
        self._stderr = directory / "stderr"

    def run(self) -> Verdict:
        for name in ("tmp", "home"):
            (self._directory / name).mkdir()
        before = set(children(os.getpid()))
        began = time.monotonic()
        with open(self._stderr, "wb") as stderr:
            program = subprocess.Popen(
                self._command(launch := self._launch()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=launch.env,
                start_new_session=True,
                cwd=self._directory,
            )
        try:
            status = program.wait(BOUND_S)
        except subprocess.TimeoutExpired:
            self._entries = read_report(self._directory / "report")
            self._faults.append(f"hangs in {self._stage()}")
            program.kill()
            status = program.wait()
        wall_s = time.monotonic() - began
        self._entries = read_report(self._directory / "report")
        is_cut_short = bool(self._faults)
        self._look_for_processes(before)
        if not is_cut_short:
            self._judge_status(status)
            self._judge_jobs()
            self._judge_output()
        self._judge_files()
        self._faults += [entry.name for entry in self._entries if entry.tag == "fault"]
        return Verdict(self._plan, self._faults, wall_s, self._entries)

    def _launch(self) -> Launch:
        env = {
            **os.environ,
            "TMPDIR": str(self._directory / "tmp"),
            "HOME": str(self._directory / "home"),
            "COMPILEPOOL_CRASH_DIR": str(self._directory / "crashes"),
            "PYTHON_COLORS": "0",
        }
        launch = Launch(self._directory, env)
        for habit in self._habits:
            if habit.point == "launch":
                habit.do(launch)
        return launch

    def _command(self, launch: Launch) -> list[str]:
        shell = "\n".join([*launch.shell, 'exec "$0" "$@"'])
        own = [self._plan.to_json(), str(self._directory)]
        return ["sh", "-c", shell, sys.executable, *launch.flags, "-c", _BOOT, *own]

    def _stage(self) -> str:
        return next((entry.name for entry in self._entries if entry.tag == "stage"), "its start")

    def _look_for_processes(self, before: set[int]) -> None:
        """What is below this process now has been below the program."""
        own = {int(entry.name) for entry in self._entries if entry.tag == "own"}

        def of_pool() -> dict[int, str]:
            _reap(set(children(os.getpid())) - before)
            below: set[int] = set()
            for pid in set(children(os.getpid())) - before - own:
                below |= {pid, *descendants(pid)}
            commands = {pid: command_line(pid) for pid in below - own if is_alive(pid)}
            # multiprocessing's own helpers live as long as any process that a fork has made.
            return {pid: text for pid, text in commands.items() if "multiprocessing." not in text}

        if not wait_until(lambda: not of_pool(), PATIENCE_S):
            self._faults.append(f"processes are left: {sorted(of_pool().values())}")

        def others() -> set[int]:
            new = set(children(os.getpid())) - before
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _reap(new)
            return set(children(os.getpid())) - before

        wait_until(lambda: not others())

    def _judge_status(self, status: int) -> None:
        expected = {number for habit in self._habits for number in habit.statuses}
        if status not in expected:
            self._faults.append(
                f"exited with {status}, not with {sorted(expected)}; {self._last()}"
            )

    def _last(self) -> str:
        lines = self._stderr.read_text(errors="replace").splitlines()
        return f"in {self._stage()}: {lines[-1] if lines else ''}"

    def _judge_jobs(self) -> None:
        is_deaf = any(habit.is_deaf for habit in self._habits)
        may_lose = is_deaf or any(habit.loses for habit in self._habits)
        allowed = {name for habit in self._habits for name in habit.allows}
        if self._plan.ends_inside:
            allowed.add("PoolClosed")
        for _, name, state, detail in (entry for entry in self._entries if entry.tag == "job"):
            job = JOBS[name]
            if state == "result":
                continue
            if state in ("submitting", "submitted") and may_lose:
                continue
            if state == "pending" and is_deaf:
                continue
            error = detail.partition(":")[0]
            may_end_with = {*job.ends, *allowed}
            if state in ("error", "refused") and {error, f"{name}/{error}"} & may_end_with:
                continue
            self._faults.append(f"job {name}: {state} {detail}")
        if not is_deaf and self._stage() != "end":
            self._faults.append(f"has not looked back, but ended in {self._stage()}")

    def _judge_output(self) -> None:
        patterns = [re.compile(pattern) for habit in self._habits for pattern in habit.says]
        lines = self._stderr.read_text(errors="replace").splitlines()
        odd = [line for line in lines if not any(each.fullmatch(line) for each in patterns)]
        if odd:
            self._faults.append("said on error output: " + "\n".join(odd)[:1500])

    def _judge_files(self) -> None:
        names = [path.name for path in (self._directory / "tmp").iterdir()]
        left = [name for name in names if not name.startswith("pymp-")]  # multiprocessing's
        if left:
            self._faults.append(f"temporary files are left: {left}")


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
