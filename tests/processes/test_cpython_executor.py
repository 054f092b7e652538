"""CPython 3.13's own tests of `ProcessPoolExecutor`, against `CompilePool`.

`tools/fetch_executor_tests.sh` gets them. What differs is listed in
`tools/executor_tests/differences.toml`, with the reason, and must fail.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tools.executor_tests.data import listed_names
from tools.executor_tests.standard_pool import StandardPool

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".cache" / "executor-tests" / "cpython"

TESTS = {
    "test_process_pool": ["ProcessPoolExecutorTest"],
    "test_deadlock": ["ExecutorDeadlockTest"],
    "test_shutdown": ["ProcessPoolShutdownTest"],
    "test_init": ["InitializerMixin", "FailingInitializerMixin"],
    "test_wait": ["WaitTests"],
    "test_as_completed": ["AsCompletedTests"],
}


def module_of_cpython(name: str) -> Any:
    """A module of the fetched package."""
    return importlib.import_module(f"test_concurrent_futures.{name}")


def prepare() -> None:
    """Make the fetched package importable, or skip this module."""
    reason = ""
    if importlib.util.find_spec("test.support") is None:
        reason = "this Python was installed without test.support"
    elif not (FETCHED / "test_concurrent_futures" / "util.py").exists():
        reason = f"CPython's tests are not in {FETCHED}"
    if reason:
        if os.environ.get("COMPILEPOOL_CPYTHON_TESTS") == "required":
            pytest.fail(reason, pytrace=False)
        # There is no other way to have them on such a machine.
        pytest.skip(reason, allow_module_level=True)
    # Last, and under its own name: the rest of `test` stays the installed one.
    sys.path.append(str(FETCHED))
    # Contexts of multiprocessing start it when they need it, and it stays: so no test starts it.
    resource_tracker.ensure_running()


def run_script(flag: str, script: str) -> Any:
    """Run a script of the tests with our executor in place of theirs."""
    for theirs, ours in (
        (
            "concurrent.futures import StandardPool",
            "tools.executor_tests.standard_pool import StandardPool",
        ),
        ("from test.test_concurrent_futures.", "from test_concurrent_futures."),
    ):
        script = script.replace(theirs, ours)
    script = "import multiprocessing\n" + script  # one of them forgets it
    path = os.pathsep.join(map(str, (ROOT, FETCHED)))
    helper = importlib.import_module("test.support.script_helper")
    return helper.assert_python_ok(flag, script, PYTHONPATH=path)


prepare()
util = module_of_cpython("util")
module_of_cpython("test_shutdown").assert_python_ok = run_script


class Fork(util.ExecutorMixin):  # type: ignore[misc,name-defined] # loaded at run time
    executor_type = StandardPool
    ctx: ClassVar[str] = "fork"

    def create_event(self) -> Any:
        return self.manager.Event()


class Spawn(Fork):
    ctx = "spawn"


for _module, _names in TESTS.items():
    for _name in _names:
        _tests = getattr(module_of_cpython(_module), _name)
        util.create_executor_tests(globals(), _tests, executor_mixins=(Fork, Spawn))


_there = {
    text
    for each in list(globals().values())
    if isinstance(each, type)
    for name in dir(each)
    for text in (name, f"{each.__name__}::{name}")
}
if _missing := listed_names("cpython") - _there:
    raise pytest.UsageError(f"tests are listed that are not there: {sorted(_missing)}")
