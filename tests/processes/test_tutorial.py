"""The tutorial's programs run, and print what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
BLOCK = re.compile(r'```python title="([\w.]+)"\n(.*?)```(?:\n\n```text\n(.*?)```)?', re.DOTALL)
PROGRAMS = {name: (code, output) for name, code, output in BLOCK.findall(PAGE.read_text())}


def test_every_program_of_the_tutorial_has_a_name() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python")


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_of_the_tutorial_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    code, output = PROGRAMS[name]
    program = tmp_path / name
    program.write_text(code)
    run = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=PATIENCE_S,
    )
    assert (run.returncode, run.stderr) == (0, "")
    lines = iter(run.stdout.splitlines())
    for expected in output.splitlines():
        pattern = ".*".join(map(re.escape, expected.split("…")))
        assert any(re.fullmatch(pattern, line) for line in lines), expected
    if name == "report.py":
        assert "kernel 11" in (tmp_path / "compile.html").read_text()
