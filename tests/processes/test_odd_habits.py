"""Programs with odd habits, chosen by a fixed seed: each ends, and so do its futures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.habits.plan import make_plan
from tests.habits.trial import run
from tests.proc import PATIENCE_S

PROGRAMS = 30
SEED = "16"


@pytest.mark.parametrize("number", range(PROGRAMS))
def test_a_program_with_odd_habits_ends_and_leaves_nothing(number: int) -> None:
    verdict = run(make_plan(f"{SEED}.{number}"))
    assert verdict.faults == [], verdict.plan.to_json()


def test_what_a_program_writes_to_closed_output_reaches_no_socket_of_a_pool() -> None:
    """Its numbers belong to the next files that are opened: not to a pool's."""
    program = (
        "import os\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "from compilepool import CompilePool\n"
        "with CompilePool(1) as pool:\n"
        "    argument = bytes(10**6)\n"
        "    for _ in range(3):\n"
        "        future = pool.submit(len, argument)\n"
        "        for fd in (0, 1, 2):\n"
        "            try: os.write(fd, b'a log line')\n"
        "            except OSError: pass\n"
        "        assert future.result(20) == 10**6\n"
        "    died = pool.stats().restarts.supervisor\n"
        "os._exit(died)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S * 3)
