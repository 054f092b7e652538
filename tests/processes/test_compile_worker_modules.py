"""The modules of torch's `compile_worker` that need no torch, with their names and what they do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest

import compilepool
from compilepool.any_process.phases import take_phases
from compilepool.integrations.torch.compile_worker import timer, utils, watchdog
from compilepool.integrations.torch.compile_worker.watchdog import Phase, report_phase
from tests.proc import PATIENCE_S
from tests.programs.running import Doomed, Program

NAMES = {
    "utils": ["_async_compile_initializer", "has_parent_changed", "in_toplevel_process"],
    "timer": ["Timer"],
    "tracked_process_pool": ["TrackedProcessPoolExecutor", "_queue_stats", "_queue_stats_report"],
    "watchdog": ["Phase", "report_phase"],
}
FOLDER = "compilepool.integrations.torch.compile_worker"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None"
STOCK_EXECUTOR = f"""
{WITHOUT_TORCH}
import json, os, signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from {FOLDER}.utils import _async_compile_initializer, has_parent_changed, in_toplevel_process

NEVER_OPEN = 900

def look():
    return {{
        "pid": os.getpid(),
        "is_top_level": in_toplevel_process(),
        "has_parent_changed": has_parent_changed(),
        "ignores_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "open": [os.readlink(each) for fd in os.listdir("/proc/self/fd")
                 if os.path.lexists(each := f"/proc/self/fd/{{fd}}")],
    }}

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    to_be_closed, kept = os.pipe(), os.pipe()
    executor = ProcessPoolExecutor(
        1,
        mp_context=get_context(sys.argv[1]),
        initializer=_async_compile_initializer,
        initargs=(os.getpid(), [NEVER_OPEN, *to_be_closed]),
    )
    before = executor.submit(look).result()
    executor.submit(interrupt).result()
    print(json.dumps({{
        "here": look(),
        "worker": before,
        "worker afterwards": executor.submit(look).result(),
        "to be closed": os.readlink(f"/proc/self/fd/{{to_be_closed[0]}}"),
        "kept": os.readlink(f"/proc/self/fd/{{kept[0]}}"),
    }}), flush=True)
    sys.stdin.readline()
    executor.shutdown()
"""


class OfLaterTorch(IntEnum):
    """What a later torch may have."""

    COMPILING = 2
    LOADING_THE_CUBIN = 3


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_there_without_torch(name: str) -> None:
    code = f"{WITHOUT_TORCH}; from {FOLDER}.{name} import {', '.join(NAMES[name])}"
    loaded = "print([name for name in sys.modules if name.startswith('torch')])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; {loaded}"], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("['torch']\n", "")


def test_what_is_to_need_no_torch_does_so_because_there_is_none() -> None:
    code = f"{WITHOUT_TORCH}; import {FOLDER}.subproc_pool"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "import of torch halted" in ended.stderr


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_initializer_makes_workers_of_a_stock_executors_processes(
    context: str, tmp_path: Path
) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), context) as program:
        seen = json.loads(program.read_line())
        here, worker = seen["here"], seen["worker"]
        assert (here["is_top_level"], worker["is_top_level"]) == (True, False)
        assert (here["has_parent_changed"], worker["has_parent_changed"]) == (False, False)
        assert (here["ignores_sigint"], worker["ignores_sigint"]) == (False, True)
        assert seen["worker afterwards"]["pid"] == worker["pid"] != here["pid"]
        program.write("\n")
        assert program.wait() == 0
        assert program.stderr() == ""


def test_the_initializer_closes_what_the_worker_must_not_keep(tmp_path: Path) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), "fork") as program:
        seen = json.loads(program.read_line())
        assert {seen["to be closed"], seen["kept"]} <= set(seen["here"]["open"])
        assert seen["to be closed"] not in seen["worker"]["open"]
        assert seen["kept"] in seen["worker"]["open"]
        program.write("\n")
        assert program.wait() == 0


def test_the_worker_of_a_stock_executor_ends_with_its_owner(tmp_path: Path) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), "fork") as program:
        worker = json.loads(program.read_line())["worker"]["pid"]
        with Doomed([worker]) as doomed:
            program.kill()
            assert doomed.wait()


def test_the_names_of_utils_are_those_of_the_package() -> None:
    assert utils.in_toplevel_process is compilepool.in_toplevel_process
    assert utils.has_parent_changed is compilepool.has_parent_changed
    assert utils.in_toplevel_process()
    assert not utils.has_parent_changed()


def test_the_timer_calls() -> None:
    called = threading.Event()
    each = timer.Timer(0.01, called.set)
    each.record_call()
    assert called.wait(PATIENCE_S)
    each.quit()


def use_the_cache() -> None:
    report_phase(Phase.QUERYING_CACHE)
    report_phase(Phase.COMPILING)
    report_phase(Phase.RUNNING)


def load() -> None:
    report_phase(OfLaterTorch.COMPILING)
    report_phase(OfLaterTorch.LOADING_THE_CUBIN)


@pytest.mark.parametrize(
    ("job", "phases"),
    [
        (use_the_cache, ["cache look-up", "compile", "running"]),
        (load, ["compile", "loading the cubin"]),
    ],
)
def test_the_phases_of_a_job_have_names(job: Callable[[], None], phases: list[str]) -> None:
    with compilepool.CompilePool(1) as pool:
        future = pool.submit(job)
        future.result(PATIENCE_S)
    assert [phase.name for phase in future.record.phases] == phases


def test_the_numbers_of_phases_are_torchs() -> None:
    assert [(phase.name, phase.value) for phase in watchdog.Phase] == [
        ("RUNNING", 0),
        ("QUERYING_CACHE", 1),
        ("COMPILING", 2),
    ]


def test_outside_of_a_job_a_phase_does_nothing() -> None:
    use_the_cache()
    load()
    assert take_phases() == []
