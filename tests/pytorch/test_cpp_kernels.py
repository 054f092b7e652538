"""Inductor's C++ backend compiles in the pool: real g++, real kernels."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from torch._inductor.codecache import _worker_compile_cpp
from torch._inductor.cpp_builder import BuildOptionsBase, CppBuilder

from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool
from tests.proc import wait_until
from tests.pytorch.inductor_program import PATIENCE_S, run_program

# No time is spent on finding out what the CPU can do, and on headers that one kernel needs.
PRELUDE = """
import compilepool.integrations.torch as integration
from compilepool.errors import MemoryLimitExceeded

def f(x):
    return x.softmax(-1) + x.cumsum(-1), x.sum(0)

def compiled(x):
    import torch
    from torch._inductor.async_compile import AsyncCompile
    torch._inductor.config.fx_graph_cache = False
    torch._inductor.config.cpp_cache_precompile_headers = False
    AsyncCompile.wait_pool_ready()
    return torch.compile(f)(x)
"""
ENV = {"TORCHINDUCTOR_VEC_ISA_OK": "0"}


def test_a_kernel_is_a_job_of_its_name_and_computes_the_same(tmp_path: Path) -> None:
    run_program(
        """
        integration.install(trace="trace.json")
        import torch
        x = torch.randn(8, 8)
        torch.testing.assert_close(compiled(x), f(x))
        """,
        tmp_path,
        prelude=PRELUDE,
        env=ENV,
    )
    events = json.loads((tmp_path / "trace.json").read_text())
    (job,) = [event["name"] for event in events if event.get("cat") == "job"]
    assert job.startswith("cpp_fused_")
    assert {event["name"] for event in events if event.get("cat") == "phase"} == {"g++"}
    assert list((tmp_path / "inductor").rglob("*.part")) == []


def test_the_memory_of_the_compiler_is_limited(tmp_path: Path) -> None:
    done = run_program(
        """
        integration.install(memory_limit="60MiB")
        import torch
        import torch._inductor.exc
        try:
            compiled(torch.randn(8, 8))
        except torch._inductor.exc.InductorError as error:
            print(error)
            assert isinstance(error.inner_exception.error, MemoryLimitExceeded)
        """,
        tmp_path,
        prelude=PRELUDE,
        env=ENV,
    )
    assert "more than its memory_limit of 60 MiB" in done.stdout
    assert "cc1plus (" in done.stdout
    assert "Name=cpp_fused_" in done.stdout
    assert list((tmp_path / "inductor").rglob("*.so")) == []


def test_an_error_of_the_compiler_is_the_one_that_inductor_expects(tmp_path: Path) -> None:
    (tmp_path / "g++").write_text('#!/bin/sh\nexec g++ "$@" -include no_such_header.h\n')
    (tmp_path / "g++").chmod(stat.S_IRWXU)
    run_program(
        """
        integration.install()
        import torch
        import torch._inductor.exc
        try:
            compiled(torch.randn(8, 8))
        except torch._inductor.exc.InductorError as error:
            assert type(error.inner_exception) is torch._inductor.exc.CppCompileError
            assert "no_such_header.h" in str(error)
        assert integration.current_pool().stats().failed == {"CppCompileError": 1}
        """,
        tmp_path,
        prelude=PRELUDE,
        env={**ENV, "CXX": str(tmp_path / "g++")},
    )


HANGS_IN_THE_MIDDLE = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo half of it > "$2"
[ -e "{go_on}" ] && exit 0
exec sleep 1000
"""


def test_a_compiler_that_is_killed_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    compiler, go_on = tmp_path / "g++", tmp_path / "go_on"
    compiler.write_text(HANGS_IN_THE_MIDDLE.format(go_on=go_on))
    compiler.chmod(stat.S_IRWXU)
    builder = CppBuilder("kernel", "kernel.cpp", BuildOptionsBase(str(compiler)), str(tmp_path))
    target = Path(builder.get_target_file_path())
    for _ in range(2):
        pool = SubprocPool(1)
        future = pool.submit(_worker_compile_cpp, str(tmp_path / "lock"), (builder,))
        if go_on.exists():  # the second time
            assert future.result(PATIENCE_S) is None
        else:
            assert wait_until(lambda: any(tmp_path.glob("kernel*.part")), PATIENCE_S)
        pool.shutdown()
        assert target.exists() == go_on.exists()
        go_on.touch()
    assert list(tmp_path.glob("*.part")) == []
