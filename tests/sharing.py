"""Programs that have a pool each, and do what a test tells them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.proc import PATIENCE_S, command_line, pids_with_environment, wait_until

_PROGRAM = """
import ast, json, os, signal, sys, threading, time
from compilepool import CompilePool
from tests import shared_jobs as jobs
def main():
    pool = CompilePool(**eval(sys.argv[1]))
    known = {"pool": pool, "futures": {}, **globals()}
    for line in sys.stdin:
        try:
            code = json.loads(line)
            try:
                answer = eval(code, known)
            except SyntaxError:
                answer = exec(code, known)
            answer = {"is": answer}
        except BaseException as error:
            answer = {"raised": type(error).__name__, "text": str(error)}
        print(json.dumps(answer, default=repr), flush=True)
if __name__ == "__main__":
    main()
"""


class Failed(Exception):
    """What a program's code raised: the name of the exception's type, and its text."""


class Program:
    """A program that runs one line of code after the other.

    In the code, `pool` is its pool, `jobs` is `tests.shared_jobs`, and `futures` is a dict.

    Args:
        options: the pool's, as source code.
        env: what differs in its environment.
        cwd: its working directory.
    """

    def __init__(
        self, options: str = "max_workers=2, shared=True", *, cwd: Path | None = None, **env: str
    ) -> None:
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, f"dict({options})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, **env},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, code: str) -> None:
        """Have it run code. `answer` waits for the end of that."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What the code returns. Raises `Failed` if it has raised."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed("Ended", self.error_output())
        answer = json.loads(line)
        if "raised" in answer:
            raise Failed(answer["raised"], answer["text"])
        return answer["is"]

    def run(self, code: str) -> Any:
        """Run code, and return what it returns; as text, if JSON does not have its type."""
        self.start(code)
        return self.answer()

    def error_output(self) -> str:
        """Its error output; waits for its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> str:
        """Let it end, as a program does whose work is done. Returns its error output."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        text = self.error_output()
        self.process.wait(PATIENCE_S)
        return text

    def kill(self) -> None:
        """Kill it, SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Kill it, if it lives, and close its pipes."""
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextlib.contextmanager
def programs(count: int, options: str = "max_workers=2, shared=True") -> Iterator[list[Program]]:
    """Several programs, each rank RANK of them. They are killed at the end, if they live."""
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(count):
            ranks.append(Program(options, RANK=str(rank), LOCAL_RANK=str(rank)))
            stack.callback(ranks[-1].close)
        yield ranks


def supervisors() -> list[int]:
    """The pids of the supervisors that this test's programs have started."""
    mark = f"COMPILEPOOL_TEST={os.environ['COMPILEPOOL_TEST']}"
    found = pids_with_environment(mark)
    return [pid for pid in found if command_line(pid) == "compilepool supervisor"]


def nothing_is_left(runtime: Path) -> bool:
    """Whether no supervisor and no file of one is left, once there was time."""
    folder = runtime / "compilepool"
    return wait_until(lambda: not supervisors() and not (folder.exists() and [*folder.iterdir()]))
