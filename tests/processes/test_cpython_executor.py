"""CPython's own tests of executors, as they are, against `CompilePool`.

Where the interpreter was installed without them, `tools/fetch_cpython_tests.sh` gets them.
"""

from __future__ import annotations

import importlib
import os
import sys
import unittest
from pathlib import Path
from typing import Any, ClassVar

import pytest

from compilepool import CompilePool

FETCHED = Path(__file__).parents[2] / ".cache" / "cpython-tests"

LEFT_OUT = {
    "test_interpreter_shutdown": "wants interpreter exit to wait for jobs; ours ends them at once",
    "test_submit_after_interpreter_shutdown": "imports its executor from concurrent.futures",
    "test_hang_gh83386": "wants interpreter exit to wait for jobs; ours ends them at once",
}


def load_tests_of_cpython() -> Any:
    """The installed `test.test_concurrent_futures`, or the fetched one."""
    if sys.version_info >= (3, 12):
        # From 3.12 on they are a package, which nobody has tried this with.
        pytest.skip("only CPython 3.11's tests are known here", allow_module_level=True)
    try:
        return importlib.import_module("test.test_concurrent_futures")
    except ImportError:
        pass
    if not (FETCHED / "test_concurrent_futures.py").exists():
        reason = f"no test.test_concurrent_futures, and nothing in {FETCHED}"
        if os.environ.get("COMPILEPOOL_CPYTHON_TESTS") == "required":
            pytest.fail(reason, pytrace=False)
        # There is no other way to have them where neither installed nor packaged.
        pytest.skip(reason, allow_module_level=True)
    # Last, and under its own name: the rest of `test` stays the installed one.
    sys.path.append(str(FETCHED))
    return importlib.import_module("test_concurrent_futures")


cpython = load_tests_of_cpython()


class Fork(cpython.ExecutorMixin):  # type: ignore[misc,name-defined] # loaded at run time
    executor_type = CompilePool


class Spawn(cpython.ExecutorMixin):  # type: ignore[misc,name-defined] # loaded at run time
    executor_type = CompilePool
    executor_kwargs: ClassVar = {"start_method": "spawn"}


TESTS = {
    Fork: ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest"),
    # The others wait for timeouts rather than for workers.
    Spawn: ("ExecutorTest", "ExecutorShutdownTest"),
}

for _mixin, _names in TESTS.items():
    for _tests in _names:
        _bases = (_mixin, getattr(cpython, _tests), cpython.BaseTestCase)
        _name = f"{_mixin.__name__}{_tests}"
        globals()[_name] = type(_name, _bases, dict.fromkeys(LEFT_OUT))


def test_what_is_left_out_is_there_to_leave_out() -> None:
    for name in LEFT_OUT:
        assert hasattr(cpython.ExecutorShutdownTest, name)
    assert issubclass(globals()["ForkExecutorTest"], unittest.TestCase)
