"""Where the output of jobs is shown, if it is: see `worker.output`."""

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
    """The variables that say so to the processes of a pool, as Inductor's config is now."""
    path = config.torchinductor_worker_logpath or config.get_worker_log_path()
    return {
        SUPPRESS: str(int(bool(config.worker_suppress_logging))),
        LOG_PATH: os.path.abspath(path) if path else None,
    }


class WorkerLog:
    """Writes the output of each job when it has ended, so that no two jobs' get mixed.

    Args:
        env: the environment that the processes of the pool have.
        is_new: whether the file is begun anew, as by the reference; else they may be in it already.

    Raises:
        OSError: the file cannot be written.
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
        """To be called when a job's future is done."""
        assert isinstance(job, CompileFuture)
        if text := job.record.log:
            # A full disk is no reason to fail a job.
            with self._lock, contextlib.suppress(OSError, ValueError):
                self._write(f"--- {job.name}\n{text.rstrip()}\n")

    def close(self) -> None:
        """There are no more jobs. May be called twice."""
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
    """For what comes too late."""
