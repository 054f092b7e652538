"""`compilepool crashes`, as users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from compilepool.client.crashes.crash_folder import CALL, REPORT, keep
from compilepool.client.session.packing import pack_call
from tests.crashed_jobs import crashed_job, keep_call
from tests.processes.replays import compilepool, crash

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_without_crashes_the_list_says_so(root: Path) -> None:
    ended = compilepool("crashes")
    assert (ended.returncode, ended.stdout) == (0, f"no crashes in {root}\n")
    ended = compilepool("crashes", "--json")
    assert (ended.returncode, ended.stdout) == (0, "[]\n")


def test_the_newest_is_listed_first(root: Path) -> None:
    facts: dict[str, Any] = {"signal": None, "exitcode": 3}
    traced = {"signal": int(signal.SIGSEGV), "where": "string_at (__init__.py:519)"}
    native = {"signal": 62, "where": "llvm::lower (libtriton.so+0x1\x1b)"}
    folders = [
        keep_call(root, crash, name=name, report=report)
        for name, report in (("first", facts), ("[bold]x\x1b[31m", traced), ("third", native))
    ]
    ended = compilepool("crashes")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[1::2] == [f"    {folder}" for folder in reversed(folders)]
    third, second, first = lines[::2]
    assert re.fullmatch(rf"{TIME}  signal 62  third in llvm::lower \(libt.*\), [\d.]+ kB", third)
    assert re.search(r"  SIGSEGV  \[bold\]x�\[31m in string_at \(__init__.py:519\), ", second)
    assert re.fullmatch(rf"{TIME}  exit code 3  first, [\d.]+ kB", first)
    rows = json.loads(compilepool("crashes", "--json").stdout)
    assert [row["folder"] for row in rows] == [str(folder) for folder in reversed(folders)]
    assert [row["job"] for row in rows] == ["third", "[bold]x\x1b[31m", "first"]
    assert [(row["signal"], row["exitcode"]) for row in rows] == [(62, None), (11, None), (None, 3)]
    for row, folder in zip(reversed(rows), folders, strict=True):
        assert row["bytes"] == sum(path.stat().st_size for path in folder.iterdir())


def test_what_cannot_be_replayed_is_listed_as_such(root: Path) -> None:
    call = pack_call("job", abs, (), {}, None)
    damaged, untrusted = (keep(crashed_job("job", call)) for _ in range(2))
    (damaged / REPORT).write_text("")
    (untrusted / CALL).chmod(0o666)
    rows = {row["folder"]: row for row in json.loads(compilepool("crashes", "--json").stdout)}
    assert "report.json holds no JSON object" in rows[str(damaged)]["error"]
    assert "can be written to by others" in rows[str(untrusted)]["error"]
    listed = compilepool("crashes")
    assert (listed.returncode, listed.stdout.count("cannot be replayed: ")) == (0, 2)
    assert {str(damaged), str(untrusted)} <= {*listed.stdout.split()}


def test_the_list_of_crashes_is_written_in_any_encoding(tmp_path: Path) -> None:
    keep_call(tmp_path, abs, -1, name="größe\x1b")
    listed = subprocess.run(
        [sys.executable, "-m", "compilepool.cli.main", "crashes"],
        env={**os.environ, "COMPILEPOOL_CRASH_DIR": str(tmp_path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "  gr??e?, " in listed.stdout
