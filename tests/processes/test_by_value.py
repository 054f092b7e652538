"""Functions and classes of a script can be jobs, whatever decorates them or has started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S

DECORATED = f"""\
import functools, pickle, sys, weakref
from compilepool import CompilePool

@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@functools.lru_cache(maxsize=3, typed=True)
def cached(n): return n

smallest = functools.cache(functools.partial(min, 3))

@functools.singledispatch
def kind(_): return "object"

class Class:
    @functools.cached_property
    def lazy(self): return 4
    @functools.cache
    def method(self): return 5

@kind.register
def _(_: Class): return "Class"

def outer():
    @functools.cache
    def inner(n): return n
    return inner

def job():
    assert cached.cache_parameters() == dict(maxsize=3, typed=True)
    instance = Class()
    assert instance.lazy == instance.__dict__["lazy"]
    return cached(3), instance.lazy, instance.method(), kind(instance), kind(0), cached.__name__

with CompilePool(1, start_method=sys.argv[1]) as pool:
    for before_and_after_they_are_used in range(2):
        assert pool.submit(fibonacci, 90).result({PATIENCE_S}) == fibonacci(90)
        assert pool.submit(smallest, 5).result({PATIENCE_S}) == 3
        assert pool.submit(outer(), 3).result({PATIENCE_S}) == 3
        there = pool.submit(job).result({PATIENCE_S})
        assert there == job(), there
    whole = weakref.WeakKeyDictionary({{Class: 1}})
    assert dict(pool.submit(lambda: whole).result({PATIENCE_S})) == {{Class: 1}}
    instance = Class()
    partly = weakref.WeakKeyDictionary({{instance: 1}})
    try:
        pool.submit(len, partly)
    except pickle.PicklingError:
        print("refused")
    assert pool.submit(lambda: functools.cache).result({PATIENCE_S}) is functools.cache
print("done")
"""

STARTED = f"""\
import inspect, multiprocessing, sys
from compilepool import CompilePool

class Class:
    def method(self): return inspect.getsource(Class)

def job(): return Class().method(), inspect.getsource(job)

def main():
    with CompilePool(1) as pool:
        assert pool.submit(job).result({PATIENCE_S}) == job()
        assert pool.submit(Class().method).result({PATIENCE_S}) == inspect.getsource(Class)
        assert type(pool.submit(Class).result({PATIENCE_S})) is Class
        print("done", __name__)

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=main)
    child.start()
    child.join()
"""


def run(folder: Path, script: str, *arguments: str) -> str:
    (folder / "script.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, folder / "script.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 3,
    )
    assert ended.stderr == ""
    return ended.stdout


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_decorated_functions_of_a_script(tmp_path: Path, start_method: str) -> None:
    assert run(tmp_path, DECORATED, start_method) == "refused\ndone\n"


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_a_script_that_multiprocessing_has_started(tmp_path: Path, start_method: str) -> None:
    assert run(tmp_path, STARTED, start_method) == "done __mp_main__\n"
