"""Where the output goes of processes that run PyTorch, but for that of jobs, which is captured."""

from __future__ import annotations

import os
from collections.abc import Mapping

SUPPRESS = "TORCHINDUCTOR_WORKER_SUPPRESS_LOGGING"
LOG_PATH = "TORCHINDUCTOR_WORKER_LOGPATH"
"""Inductor's own variables (torch/_inductor/config.py). The client sets them as its config says."""


def output_path(env: Mapping[str, str]) -> str:
    """The file that gets it, as `SubprocPool` of torch has it; empty: the program's own output."""
    if env.get(SUPPRESS, "1") == "1":
        return os.devnull
    return env.get(LOG_PATH, "")


def redirect_output() -> None:
    """Have the output and error output of this process go there."""
    path = output_path(os.environ)
    if not path:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
