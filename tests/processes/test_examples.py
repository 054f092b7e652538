"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWS = {
    "one_bad_kernel.py": ["kernel_0: 16 bytes", "'kernel_7' crashed with SIGSEGV"],
    "hanging_job.py": ["in phase 'assemble'", "sleep 1000 [", "Native stacks:"],
    "limits.py": [
        "job 'softmax' ran longer than its timeout of 0.5 s",
        "phase    assemble, for ",
        "more than its memory_limit of 256 MiB",
        "result: 1024 in ",
    ],
    "progress.py": [
        "matmul_96 failed (parse ",
        "6 jobs, 5 done, 1 ValueError",
        "to be opened in https://ui.perfetto.dev",
    ],
    "idle.py": ["warm:      {'starting': 0, 'idle': 4,", "woken in:"],
    "stock_pool.py": [
        "here:      top-level: True",
        "in a job:  top-level: False, parent gone: False",
    ],
    "warm_preload.py": ["sqlite3 was there"],
}


# With the package that each needs.
COMPILERS = {
    "your_compiler.py": ("ctypes", ["x * x at 3: 9.0", "x + failed: cc returned 1", "7 * x at 3:"]),
    "numba_cache.py": ("numba", ["raised(float64) compiled", "loaded from the cache: 3"]),
    "triton_kernels.py": (
        "triton",
        ["double: ", " bytes for sm_90", "'double[BLOCK=64, num_warps=4]' crashed with SIGABRT"],
    ),
    "jax_cache.py": ("jax", ["8 of 8 loaded from the cache"]),
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWS)
    assert {path.name for path in EXAMPLES.glob("compilers/*.py")} == set(COMPILERS)


@pytest.mark.parametrize("name", sorted(COMPILERS))
def test_a_compiler_compiles_in_the_pool(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, shows = COMPILERS[name]
    if not find_spec(package):
        pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    command = [sys.executable, str(EXAMPLES / "compilers" / name), str(tmp_path / "cache")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (run.returncode, run.stderr) == (0, "")
    for line in shows:
        assert line in run.stdout


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_an_example_runs_and_shows_what_it_is_for(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    for line in SHOWS[name]:
        assert line in run.stdout


def test_the_readmes_lines_run() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    _, _, rest = readme.partition("```python\n")
    code, _, _ = rest.partition("```")
    assert "CompilePool(" in code
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "SIGSEGV" in run.stdout
