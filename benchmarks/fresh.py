"""Runs code in a new interpreter, for effects that each interpreter has only once."""

from __future__ import annotations

import subprocess
import sys
import time


def fresh_python(code: str, *args: str, timeout_s: float = 60.0) -> tuple[float, str]:
    """Run code in a new interpreter.

    Returns:
        `time.monotonic()` before the start, in seconds, and the last line that the code printed.
    """
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    began = time.monotonic()
    process = subprocess.run(
        command, stdout=subprocess.PIPE, timeout=timeout_s, check=True, text=True
    )
    return began, process.stdout.splitlines()[-1]
