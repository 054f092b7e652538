"""Bad input fails at once, in one clear line, and starts nothing."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from compilepool import CompilePool, SerializationError


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
        ({"max_workers": -3}, ValueError, "max_workers must be greater than 0, not -3"),
        ({"max_workers": 2.0}, TypeError, "max_workers must be an int or None, not 2.0"),
        ({"max_workers": True}, TypeError, "max_workers must be an int or None, not True"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an int or None, not '2'"),
        ({"max_wokers": 2}, TypeError, "unexpected keyword argument 'max_wokers'"),
        ({"preload": "torch"}, TypeError, "preload must be a list of module names, not 'torch'"),
        ({"preload": [1]}, TypeError, "preload must be a list of module names"),
        ({"preload": ["no_such"]}, ValueError, "preload names 'no_such', but there is no such"),
        ({"preload": ["no-name"]}, ValueError, "preload names 'no-name'"),
        ({"preload": ["__main__"]}, ValueError, "preload names '__main__'"),
        ({"preload": [""]}, ValueError, "preload names ''"),
        ({"initializer": 3}, TypeError, "initializer must be callable, not 3"),
        ({"initargs": "abc"}, TypeError, "initargs must be a tuple, not 'abc'"),
        ({"start_method": "thread"}, ValueError, "start_method must be 'fork' or 'spawn'"),
        ({"serializer": object()}, TypeError, "serializer must have a method 'dumps'"),
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds greater than 0, or None"),
        ({"timeout": -1.5}, ValueError, "greater than 0, or None, not -1.5"),
        ({"timeout": float("nan")}, ValueError, "greater than 0, or None, not nan"),
        ({"timeout": float("inf")}, ValueError, "greater than 0, or None, not inf"),
        ({"timeout": "30"}, TypeError, "timeout must be a number of seconds"),
        ({"timeout": 10**400}, ValueError, "timeout must be a number of seconds"),
        ({"memory_limit": 10**400}, ValueError, "memory_limit must be a number of bytes"),
        ({"timeout": True}, TypeError, "timeout must be a number of seconds"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be a number of bytes, or text such"),
        ({"memory_limit": -1}, ValueError, "such as '512MiB' or '4GiB', or None, not -1"),
        ({"memory_limit": "4 gigs"}, ValueError, "or '4GiB', or None, not '4 gigs'"),
        ({"memory_limit": float("nan")}, ValueError, "or None, not nan"),
        ({"memory_limit": [1]}, TypeError, "memory_limit must be a number of bytes"),
        ({"memory_limit": "1MiB"}, ValueError, "must be 4 MiB at least, which an idle worker"),
        ({"memory_limit": 8}, ValueError, "must be 4 MiB at least"),
        ({"nice": -1}, ValueError, "nice must be 0 to 19"),
        ({"nice": 20}, ValueError, "nice must be 0 to 19"),
        ({"nice": "low"}, TypeError, "nice must be an int"),
        ({"cpus": []}, ValueError, "cpus must be some of those that this process may use"),
        ({"cpus": [100_000]}, ValueError, "cpus must be some of those"),
        ({"cpus": 2}, TypeError, "cpus must be numbers of CPUs, such as [0, 1], not 2"),
        ({"cpus": "01"}, TypeError, "cpus must be numbers of CPUs"),
        ({"pin_workers": 1}, TypeError, "pin_workers must be True or False"),
        ({"env": ["A"]}, TypeError, "env must be a dict of environment variables"),
        ({"env": {"A": 1}}, TypeError, "env must map a str to a str or None, not 'A': 1"),
        ({"env": {"A=B": "1"}}, ValueError, "env has an entry that no environment can have: 'A=B'"),
        ({"env": {"A": "\0"}}, ValueError, "env has an entry that no environment can have"),
        ({"env": {"A": "\ud800"}}, ValueError, "env has an entry that cannot be encoded"),
        ({"cpus": iter([0])}, TypeError, "cpus must be numbers of CPUs"),
    ],
)
def test_a_pool_refuses_a_wrong_option(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        CompilePool(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": 3}, TypeError, "name must be a str or None, not 3"),
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds greater than 0"),
        ({"memory_limit": "4 gigs"}, ValueError, "or '4GiB', or None, not '4 gigs'"),
        ({"memory_limit": float("nan")}, ValueError, "or None, not nan"),
        ({"expected_memory": 0}, ValueError, "expected_memory must be a number of bytes"),
        ({"expected_memory": "much"}, ValueError, "not 'much'"),
        ({"retries": -1}, ValueError, "retries must be 0 or more, not -1"),
        ({"retries": 1.0}, TypeError, "retries must be an int, not 1.0"),
        ({"priority": "high"}, TypeError, "priority must be an int, not 'high'"),
        ({"key": 5}, TypeError, "key must be a str or None, not 5"),
        ({"key": ""}, ValueError, "key must not be empty"),
        ({"key": "x" * 2000}, ValueError, "key must have 1024 characters at most"),
        ({"env": {"A": 1}}, TypeError, "env must map a str to a str or None"),
        ({"env": {"A": "x" * 40_000}}, ValueError, "env of a job must have 32 KiB at most"),
        ({"nice": 3}, TypeError, "unexpected keyword argument 'nice'"),
    ],
)
def test_a_job_refuses_a_wrong_option(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    pool = CompilePool(1)
    with pytest.raises(error) as caught:
        pool.options(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(TypeError) as caught:
        CompilePool(0, preload="torch", start_method="x")  # type: ignore[arg-type] # the point
    for word in ("max_workers", "preload", "start_method"):
        assert word in str(caught.value)


def test_checking_a_preload_name_imports_nothing() -> None:
    assert "antigravity" not in sys.modules
    CompilePool(1, preload=["antigravity"])
    assert "antigravity" not in sys.modules


def test_an_initializer_that_cannot_be_pickled_is_refused() -> None:
    with pytest.raises(SerializationError, match="initargs could not be pickled"):
        CompilePool(1, initializer=print, initargs=(threading.Lock(),))


def test_jobs_refuse_wrong_options() -> None:
    pool = CompilePool(1)
    with pytest.raises(TypeError, match="name must be a str or None, not 3"):
        pool.options(name=3)  # type: ignore[arg-type] # the point
    with pytest.raises(TypeError, match="unexpected keyword argument 'nmae'"):
        pool.options(nmae="x")  # type: ignore[call-arg] # the point
    with pytest.raises(TypeError, match="submit needs a callable, not int"):
        pool.submit(3)  # type: ignore[arg-type] # the point


def test_a_pool_that_was_never_used_starts_nothing() -> None:
    with CompilePool(2):
        pass
    CompilePool(2).shutdown(cancel_futures=True)
