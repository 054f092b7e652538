"""A pool may be constructed anywhere, also in modules that the pool's own processes import."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from compilepool import CompilePool, NestedPoolError, SerializationError, in_toplevel_process
from tests.proc import PATIENCE_S, descendants
from tests.programs.running import run_code

MODULE = """
from compilepool import CompilePool
pool = CompilePool(2, **{options})
def compile_kernel(source):
    return source.upper()
def submit_from(source):
    return pool.submit(compile_kernel, source)
"""


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a module with jobs and a pool of its own, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, **options: object) -> Any:
        (tmp_path / f"{name}.py").write_text(MODULE.format(options=options))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return make


@pytest.mark.parametrize("preload", [(), ("kernels_anywhere",)])
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_module_may_have_jobs_and_the_pool_for_them(
    start_method: str, preload: tuple[str, ...], kernels: Callable[..., Any]
) -> None:
    module = kernels("kernels_anywhere", start_method=start_method, preload=preload)
    with module.pool:
        assert module.submit_from("abc").result(PATIENCE_S) == "ABC"


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_pool_in_a_worker_takes_no_jobs_and_does_no_harm(
    start_method: Literal["fork", "spawn"], kernels: Callable[..., Any], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.json"
    module = kernels("kernels_traced", trace=str(trace), progress=True)

    def use(what: str) -> object:
        import kernels_traced  # type: ignore[import-not-found] # made above

        pool = kernels_traced.pool
        if what == "with":
            with pool as entered:
                return entered.max_workers
        if what == "map":
            return list(pool.map(abs, [1]))
        method = getattr(pool, what)
        return method(abs, -1) if what == "submit" else method()

    with module.pool, CompilePool(1, start_method=start_method, preload=["kernels_traced"]) as pool:
        assert module.submit_from("abc").result(PATIENCE_S) == "ABC"
        for what in ("submit", "map", "warm_up", "wakeup", "wait_ready"):
            with pytest.raises(NestedPoolError, match="inside a worker"):
                pool.submit(use, what).result(PATIENCE_S)
        assert pool.submit(use, "with").result(PATIENCE_S) == 2
        for what in ("stats", "quiesce", "reload", "kill_workers", "shutdown"):
            assert pool.submit(use, what).exception(PATIENCE_S) is None
    assert "compile_kernel" in trace.read_text()


def test_processes_of_a_pool_are_no_top_level_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "asks.py").write_text(
        "import os\nfrom compilepool import in_toplevel_process\n"
        "told = in_toplevel_process(), os.getpid()"
    )

    def asked() -> Any:
        import asks  # type: ignore[import-not-found] # made above

        return asks.told

    assert in_toplevel_process()
    with CompilePool(1, preload=["asks"]) as pool:
        in_fork_server, pid = pool.submit(asked).result(PATIENCE_S)
        assert pid in descendants(os.getpid())
        assert in_fork_server is False


SITE = """
import sys
from compilepool import CompilePool
P = CompilePool(1)
try:
    P.submit(int)
except Exception as error:
    print(type(error).__name__, file=sys.stderr)
"""

PROGRAM = """
import os, sys
from sitecustomize import P
from compilepool import CompilePool
from tests.proc import PATIENCE_S, descendants
with CompilePool(1, start_method=sys.argv[1]) as pool:
    assert pool.submit(abs, -1).result(PATIENCE_S) == P.submit(abs, -1).result(PATIENCE_S) == 1
    print(len(descendants(os.getpid())))
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_sitecustomize_with_a_pool_makes_no_chain_of_pools(
    start_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    result = run_code(PROGRAM, start_method)
    # Two pools with a supervisor, a fork server and a worker each.
    assert (result.returncode, result.stdout) == (0, "6\n"), result.stderr
    # One line of each process that loads site: two fork servers, and the worker that is spawned.
    assert result.stderr.split() == ["NestedPoolError"] * (2 if start_method == "fork" else 3)


def test_a_sitecustomize_with_another_copy_of_this_package_does_not_mix_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "compilepool" / "worker"
    copy.mkdir(parents=True)
    (copy.parent / "__init__.py").write_text("")
    (copy / "__init__.py").write_text("raise_if_used = 1\n")
    (tmp_path / "sitecustomize.py").write_text("import compilepool.worker")
    with CompilePool(1, env={"PYTHONPATH": str(tmp_path)}) as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


class Picky:
    """What cannot be unpickled for a reason of its own."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("seven",)


def test_only_what_could_not_be_imported_is_said_to_need_that(
    pool: CompilePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = "must be importable there"
    with pytest.raises(SerializationError, match="ValueError: invalid literal") as caught:
        pool.submit(repr, Picky()).result(PATIENCE_S)
    assert hint not in str(caught.value)
    (tmp_path / "only_here.py").write_text("def work(): pass")
    pool.submit(abs, -1).result(PATIENCE_S)
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found] # made above

    with pytest.raises(SerializationError, match=hint):
        pool.submit(only_here.work).result(PATIENCE_S)
    (tmp_path / "only_here.py").write_text("")
    with (
        CompilePool(1) as other,
        pytest.raises(SerializationError, match=f"Can't get attribute.*{hint}"),
    ):
        other.submit(only_here.work).result(PATIENCE_S)
