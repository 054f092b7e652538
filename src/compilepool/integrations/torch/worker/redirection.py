"""Redirects the output of processes that run PyTorch. The output of jobs is captured instead."""

from __future__ import annotations

import os
from collections.abc import Mapping

SUPPRESS = "TORCHINDUCTOR_WORKER_SUPPRESS_LOGGING"
LOG_PATH = "TORCHINDUCTOR_WORKER_LOGPATH"
"""Inductor's own variables (torch/_inductor/config.py). The client sets them by its config."""


def output_path(env: Mapping[str, str]) -> str:
    """Return the file that gets the output; "": the program's own output gets it.

    torch's `SubprocPool` chooses by the same rules.

    Args:
        env: the environment of the process.
    """
    if env.get(SUPPRESS, "1") == "1":
        return os.devnull
    return env.get(LOG_PATH, "")


def redirect_output() -> None:
    """Send the output and error output of this process to `output_path`."""
    path = output_path(os.environ)
    if not path:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
