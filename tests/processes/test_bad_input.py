"""Bad input to a pool that is in use, and on another platform, fails at once in one clear line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compilepool import CompilePool, PoolClosed
from tests.proc import PATIENCE_S


def test_a_pool_that_was_shut_down_refuses_jobs_and_keeps_those_it_had() -> None:
    pool = CompilePool(1)
    future = pool.submit(abs, -1)
    pool.shutdown(wait=False)
    for refused in (lambda: pool.submit(abs, 1), pool.warm_up, lambda: pool.map(abs, [1])):
        with pytest.raises(PoolClosed, match="after shutdown; make a new pool") as caught:
            refused()
        assert isinstance(caught.value, RuntimeError)
    assert future.result(PATIENCE_S) == 1
    pool.shutdown()


def test_another_platform_is_refused_at_construction_and_not_at_import() -> None:
    code = """
import concurrent.futures.process, sys
sys.modules["fcntl"] = sys.modules["resource"] = None  # as on Windows
sys.platform = "win32"
from compilepool import CompilePool, in_toplevel_process, worker_initializer
assert in_toplevel_process()
CompilePool(2)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    last = run.stderr.splitlines()[-1]
    assert last.endswith("UnsupportedPlatform: compilepool needs Linux, this is win32")
