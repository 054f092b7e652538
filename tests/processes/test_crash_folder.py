"""Crash folders and several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from compilepool.client.crashes.crash_folder import MAX_FOLDERS
from compilepool.client.crashes.kept_crash import KeptCrash
from tests.crashed_jobs import names


def test_the_versions_are_found_without_an_import(root: Path) -> None:
    code = (
        "import sys; from compilepool.client.crashes.versions import versions;"
        "print(versions(sys.path));"
        "assert not {'torch', 'triton', 'numba', 'cloudpickle', 'subprocess'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_several_processes_may_keep_and_prune_at_once(root: Path) -> None:
    code = (
        "import sys; from compilepool.client.crashes.crash_folder import keep\n"
        "from tests.crashed_jobs import INLINE, crashed_job\n"
        "sys.stdin.read()\n"  # until all are ready
        "for i in range(20): print(keep(crashed_job('rank', INLINE)).name)"
    )
    gate, to_open = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=gate, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    os.close(gate)
    os.close(to_open)
    kept = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    all_kept = [name for names in kept for name in names]
    assert len(set(all_kept)) == len(all_kept) == 80
    assert names(root) <= set(all_kept)
    assert len(names(root)) == MAX_FOLDERS
    for folder in root.iterdir():
        with KeptCrash.open(folder) as crash:
            crash.call().close()
