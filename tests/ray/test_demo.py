"""`compilepool demo --ray`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_demo_compiles_its_kernels_over_three_nodes(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="the demo needs Triton: pip install 'compilepool[triton]'")
    command = [sys.executable, "-m", "compilepool.cli.main", "demo", "--ray", "-o", "cubins"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "cubins").iterdir())) == 28
    assert "28 of 28 kernels compiled" in done.stdout
    assert "4 bad jobs failed alone" in done.stdout
    assert re.search(r"nodes +3; 0 lost", done.stdout)
    assert re.search(r"\n +node +\S+/[0-9a-f]{8}\n", done.stdout)
