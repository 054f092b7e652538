"""examples/in_your_program/serving.py, in the ways in which servers end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.debugging import Sessions, written_port
from tests.proc import all_dead, children, command_line, descendants, free_port, wait_until
from tests.pytorch.inductor_program import PATIENCE_S, ROOT

PROGRAM = ROOT / "examples/in_your_program/serving.py"

# Both kernels of the model must be compiled at once: each compiler waits for the other one.
IN_PARALLEL = """
case "$*" in *main.cpp*)
    touch {folder}/compiler.$$
    while [ $(ls {folder}/compiler.* | wc -l) -lt 2 ]; do sleep 0.05; done
esac
"""
HANGING = """
case "$*" in *main.cpp*)
    [ -e {folder}/go_on ] || {{ touch {folder}/hangs; exec sleep 1000; }}
esac
"""


class Server:
    """The server, its output, and what is below it."""

    def __init__(self, folder: Path, compiler: str, *python: str, **env: str) -> None:
        (folder / "g++").write_text(f'#!/bin/sh\n{compiler.format(folder=folder)}\nexec g++ "$@"\n')
        (folder / "g++").chmod(0o700)
        self.folder = folder
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, *python, str(PROGRAM), str(self.port)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "CXX": str(folder / "g++"),
                "CUDA_VISIBLE_DEVICES": "",  # kernels are C++ then, and the compiler is ours
                "TORCHINDUCTOR_VEC_ISA_OK": "0",  # no time for finding out what the CPU can do
                "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
                **env,
            },
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self) -> tuple[int, str]:
        """Ask the server, which may not listen yet."""
        url = f"http://127.0.0.1:{self.port}/?8"
        assert wait_until(self._listens, PATIENCE_S)
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    @property
    def engine(self) -> int:
        (engine,) = [pid for pid in children(self.process.pid) if "spawn_main" in command_line(pid)]
        return engine

    @contextlib.contextmanager
    def compiling(self) -> Iterator[Future[tuple[int, str]]]:
        """Within the block, the server waits for compilers that hang. Yields its answer to come."""
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(self.ask)
            assert wait_until((self.folder / "hangs").exists, PATIENCE_S)
            yield answer

    def end(self) -> str:
        """End the server by SIGTERM; return all that it and its processes have printed.

        But for one line, of a torch that is made for GPUs and finds none.
        """
        below = descendants(self.process.pid)
        self.process.terminate()
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        assert wait_until(lambda: all_dead(below))
        lines = output.splitlines(keepends=True)
        return "".join(line for line in lines if "No CUDA runtime is found" not in line)


def opened_by(pid: int) -> set[str]:
    """The files that a process has open."""
    files = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                files.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return files


def test_it_compiles_in_parallel_and_quietly(tmp_path: Path) -> None:
    server = Server(tmp_path, IN_PARALLEL)
    assert server.ask() == (200, "8.000")
    assert len(descendants(server.engine)) >= 4  # supervisor, fork server, two workers
    assert server.end() == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_only_the_engine_opens_a_gpu(tmp_path: Path) -> None:
    server = Server(tmp_path, "", CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    assert server.ask() == (200, "8.000")
    holders = {
        pid
        for pid in [server.process.pid, *descendants(server.process.pid)]
        if any(file.startswith("/dev/nvidia") for file in opened_by(pid))
    }
    assert holders == {server.engine}
    server.end()


def test_sigterm_ends_the_server_and_all_below_it_while_compilers_run(tmp_path: Path) -> None:
    server = Server(tmp_path, HANGING)
    with server.compiling() as answer:
        assert server.end() == ""
    # Whichever of the two ended first.
    assert isinstance(answer.exception(), ConnectionError) or answer.result()[0] == 503


def test_a_killed_engine_takes_its_compilers_with_it_and_the_server_goes_on(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path, HANGING)
    with server.compiling() as answer:
        engine = server.engine

        def hang() -> bool:
            return any("sleep 1000" in command_line(pid) for pid in descendants(engine))

        assert wait_until(hang)  # the file comes just before that
        below = descendants(engine)
        os.kill(engine, signal.SIGKILL)
        assert answer.result(PATIENCE_S)[0] == 503
        assert wait_until(lambda: all_dead(below))
    (tmp_path / "go_on").touch()
    assert server.ask() == (200, "8.000")
    assert server.engine != engine
    assert server.end() == ""


def test_a_killed_server_takes_an_idle_engine_with_it(tmp_path: Path) -> None:
    server = Server(tmp_path, "")
    assert server.ask() == (200, "8.000")
    below = descendants(server.process.pid)
    server.process.kill()
    assert wait_until(lambda: all_dead(below))
    server.process.communicate(timeout=PATIENCE_S)


def test_a_debugger_follows_into_the_engine_and_nothing_hangs(tmp_path: Path) -> None:
    pytest.importorskip("debugpy", reason="the extra `programs` is not installed")
    line = 1 + PROGRAM.read_text().splitlines().index("            size = requests.recv()")
    sessions = Sessions(PROGRAM, line + 3, "size")
    endpoints = tmp_path / "endpoints.json"
    server = Server(
        tmp_path,
        IN_PARALLEL,
        *("-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:0", "--wait-for-client"),
        DEBUGPY_ADAPTER_ENDPOINTS=str(endpoints),
        PYDEVD_DISABLE_FILE_VALIDATION="1",  # of frozen modules, of which it would tell
    )
    sessions.start(written_port(endpoints), {"subProcess": True, "justMyCode": False})
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(server.ask)
        assert sessions.next_stop() == ("run_engine", "8")
        assert answer.result(PATIENCE_S) == (200, "8.000")
    output = server.end()
    sessions.join()
    assert output.startswith("the fork server runs ")  # with the threads of the debugger
    assert output.count("\n") == 1
