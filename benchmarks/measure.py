"""Runs a measurement in a process of its own, and kills everything that it leaves behind."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.metric import Scale

ROOT = Path(__file__).parent.parent
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of every process below it that loses its own parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def run_child(figure: str, peer: str, scale: Scale, timeout_s: float) -> dict[str, Any]:
    """Measure a figure once, or prepare it.

    Args:
        figure: the name of the figure.
        peer: the name of the pool; "prepare" to prepare the figure.
        scale: how much to measure.
        timeout_s: the time that the measurement may take, in seconds.

    Returns:
        The measured values; after a failure, only "error", with the reason in words.
    """
    scale_text = json.dumps(asdict(scale))
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.child", figure, peer, scale_text]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        # Files, not pipes: a process that a pool leaves behind may hold a pipe open for ever.
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return {"error": f"not done after {timeout_s:.0f} s"}
            finally:
                kill_all_below()
                process.poll()
        lines = output.read_text().splitlines()
        if process.returncode == 0 and lines:
            return json.loads(lines[-1])
        why = errors.read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"error": f"exit code {process.returncode}: {why[-1][:200]}"}


def environment(folder: str) -> dict[str, str]:
    """Return the environment of a measurement, which writes all its files below the folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": folder,
        "COMPILEPOOL_CRASH_DIR": os.path.join(folder, "crashes"),
        "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
        "TORCH_WARM_POOL": "0",  # otherwise an import of Inductor starts a pool of torch's
    }


def kill_all_below(bound_s: float = 20.0) -> None:
    """Kill and reap all processes below this one.

    Raises:
        TimeoutError: some are still alive after `bound_s` seconds.
    """
    deadline = time.monotonic() + bound_s
    while below := psutil.Process().children(recursive=True):
        for process in below:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(below, timeout=1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes cannot be killed: {below}")
