"""Debuggers and profilers: what they open, start and register in the processes of a pool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S
from tests.programs.running import run_code

START_METHODS = ("fork", "spawn")

TOOL = """
import os, runpy, select, socket, sys, threading
folder = os.path.dirname(sys.argv[0])
sockets = [socket.socket() for _ in range(30)]
def close_late():
    while not os.path.exists(folder + "/gate"):
        select.select([], [], [], 0.005)
    for each in sockets:
        each.close()
    open(f"{folder}/{os.getpid()}.closed", "w").close()
threading.Thread(target=close_late, daemon=True).start()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""As debugpy does it: sockets, and a thread that closes them while the program runs."""

PROGRAM = """
import glob, os, sys
from tests.proc import wait_until
spawn = os.posix_spawn
def spawn_with_tool(path, argv, env, **how):
    script = next(at for at, each in enumerate(argv) if each.endswith("entry.py"))
    return spawn(path, [*argv[:script], sys.argv[1], *argv[script:]], env, **how)
os.posix_spawn = spawn_with_tool

import logging
logging.disable(logging.WARNING)  # forking is unsafe with the tool's thread
from compilepool import CompilePool
with CompilePool(2, start_method=sys.argv[2]) as pool:
    assert pool.submit(abs, -1).result({patience}) == 1
    folder = os.path.dirname(sys.argv[1])
    open(folder + "/gate", "w").close()
    # In the supervisor, which this process has started, and below it only if that patches, too.
    assert wait_until(lambda: glob.glob(folder + "/*.closed"))
    assert isinstance(pool.submit(os.abort).exception({patience}), Exception)
    print(pool.submit(abs, -2).result({patience}))
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_tool_that_a_process_runs_under_keeps_its_descriptors(
    start_method: str, tmp_path: Path
) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text(TOOL)
    result = run_code(PROGRAM.format(patience=PATIENCE_S), str(tool), start_method)
    assert (result.returncode, result.stdout, result.stderr) == (0, "2\n", "")


SITE = """
import atexit, os, socket
sockets = [socket.socket() for _ in range(30)]
def note(what):
    with open(os.path.join({folder!r}, what), "a") as file:
        file.write(str(os.getpid()) + "\\n")
atexit.register(note, "registered by site")
os.register_at_fork(after_in_child=lambda: atexit.register(note, "registered after fork"))
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_run_the_exit_functions_that_were_registered_in_them(
    start_method: Literal["fork", "spawn"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coverage saves what it has measured in such a function."""
    (tmp_path / "sitecustomize.py").write_text(SITE.format(folder=str(tmp_path)))
    (tmp_path / "loaded.py").write_text(
        "from sitecustomize import *\natexit.register(note, 'loaded')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    with CompilePool(1, start_method=start_method, preload=["loaded"]) as pool:
        worker = pool.submit(os.getpid).result(PATIENCE_S)
    ran = {path.name: path.read_text().split() for path in tmp_path.iterdir() if not path.suffix}
    is_in = {name for name, pids in ran.items() if str(worker) in pids}
    if start_method == "spawn":
        assert is_in == {"registered by site", "loaded"}
    else:
        assert is_in == {"registered after fork"}
        (fork_server,) = ran["loaded"]
        assert fork_server in ran["registered by site"]
