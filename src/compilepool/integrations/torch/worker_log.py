"""Writes the output of jobs to the place that Inductor's config names.

`compilepool.integrations.torch.worker.redirection` does the same for all other output of the pool's
processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from torch._inductor import config

from compilepool.client.future import CompileFuture
from compilepool.integrations.torch.worker.redirection import LOG_PATH, SUPPRESS, output_path


def output_env() -> dict[str, str | None]:
    """Return the variables that say where output goes, as Inductor's config has it now."""
    path = config.torchinductor_worker_logpath or config.get_worker_log_path()
    return {
        SUPPRESS: str(int(bool(config.worker_suppress_logging))),
        LOG_PATH: os.path.abspath(path) if path else None,
    }


class WorkerLog:
    """Writes the output of each job when the job has ended, so that outputs of jobs do not mix.

    Args:
        env: the environment of the pool's processes.
        is_new: whether to empty the log file, as torch's own pool does; False: processes of the
            pool may have written to it already.

    Raises:
        OSError: the log file cannot be written.
    """

    def __init__(self, env: dict[str, str | None], *, is_new: bool) -> None:
        path = output_path({name: value for name, value in env.items() if value is not None})
        self._lock = threading.Lock()
        self._write: Callable[[str], object] = _to_terminal
        self._fd = -1
        if path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            if is_new and path != os.devnull:
                flags |= os.O_TRUNC
            self._fd = os.open(path, flags, 0o666)
            self._write = self._to_file

    def job_ended(self, job: Future[Any]) -> None:
        """Write the output of a job. A done callback of its future."""
        assert isinstance(job, CompileFuture)
        if text := job.record.log:
            # A full disk must not fail a job.
            with self._lock, contextlib.suppress(OSError, ValueError):
                self._write(f"--- {job.name}\n{text.rstrip()}\n")

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            fd, self._fd = self._fd, -1
            self._write = _nowhere
        if fd >= 0:
            os.close(fd)

    def _to_file(self, text: str) -> None:
        os.write(self._fd, text.encode(errors="replace"))


def _to_terminal(text: str) -> None:
    sys.stderr.write(text)


def _nowhere(_text: str) -> None:
    """Drop the output of a job that ends after `WorkerLog.close`."""
