"""Helion's autotuner compiles its configurations in a pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.proc import is_alive
from tests.pytorch.inductor_program import PATIENCE_S, ROOT

if not find_spec("helion"):
    pytest.skip("the extra `helion` is not installed", allow_module_level=True)


def test_a_configuration_that_aborts_or_hangs_costs_itself_and_all_others_are_in_the_cache(
    tmp_path: Path,
) -> None:
    env = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.pytorch.helion_program", str(tmp_path)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 3,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    grandchild = answer.pop("grandchild")
    assert answer == {
        "outcomes": ["ok", "error", "error", "timeout", "ok"],
        "types": ["PooledPrecompile"],
        "have_times": True,
        "hits": [True, True],
        "without_pool": "PoolClosed",
        "own": ["PrecompileFuture", "ok"],
        "pool": True,
    }
    assert not is_alive(grandchild)
    assert "Left out Config(block_sizes=[64]): the worker that ran job" in done.stderr
    assert "crashed with SIGABRT" in done.stderr
    assert "Timeout after 2s compiling Config(block_sizes=[256])" in done.stderr
