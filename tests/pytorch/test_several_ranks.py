"""Ranks of one node compile each kernel once, and each gets it for its own device."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch._inductor.codecache import _load_triton_kernel_from_source
from torch._inductor.runtime.compile_tasks import _worker_compile_triton

from compilepool.integrations.torch import own_device
from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool
from tests.kernel_sources import double, sine
from tests.pytorch.inductor_program import FAKE_GPU, PATIENCE_S, program_env

MakePool = Callable[[], SubprocPool]


@pytest.fixture(autouse=True)
def own_meeting_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test shares a pool with this one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)


@pytest.fixture
def new_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePool]:
    """Starts a rank's pool. All ranks are in this process."""
    monkeypatch.setenv("COMPILEPOOL_SHARED", "1")
    pools: list[SubprocPool] = []

    def make() -> SubprocPool:
        pools.append(SubprocPool(2))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown()


def submit(pool: SubprocPool, name: str, source: str) -> Any:
    """Submit a kernel as Inductor does."""
    env = {
        name: os.environ[name]
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
        if name in os.environ
    }
    load = functools.partial(_load_triton_kernel_from_source, name, source)
    return pool.submit(_worker_compile_triton, load, env, {"use_static_triton_launcher": True})


def index_of(future: Any) -> int:
    kernel, _elapsed_us = future.result(PATIENCE_S)
    index: int = kernel.device_props.index
    assert f"index={index}," in Path(kernel.filename).read_text()
    return index


def compilations(tmp_path: Path) -> int:
    """How many configurations of kernels Triton has compiled, in the folders of all devices."""
    return len(list((tmp_path / "inductor" / "triton").glob("*/*/__grp__*.json")))


def test_a_kernel_is_compiled_once_for_all_ranks_early_and_late(
    new_rank: MakePool, tmp_path: Path
) -> None:
    one, other = new_rank(), new_rank()
    jobs = [submit(one, "sine", sine(0)), submit(other, "sine", sine(3))]
    jobs += [submit(one, "double", double(0)), submit(other, "double", double(3))]
    assert [index_of(job) for job in jobs] == [0, 3, 0, 3]
    assert one.process.pid == other.process.pid
    assert compilations(tmp_path) == 3  # `sine` has two configurations
    late = new_rank()
    assert index_of(submit(late, "sine", sine(12))) == 12
    assert compilations(tmp_path) == 3


def test_what_a_rank_sets_for_itself_makes_no_difference(
    new_rank: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_rank()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    # torch does so when it makes a kernel in this process.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "inductor" / "triton" / "0"))
    job = submit(one, "double", double(0))
    monkeypatch.delenv("TRITON_CACHE_DIR")
    assert [index_of(job), index_of(submit(new_rank(), "double", double(1)))] == [0, 1]
    assert compilations(tmp_path) == 1


def test_what_decides_how_a_kernel_is_compiled_makes_a_difference(
    new_rank: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = new_rank(), new_rank()
    assert index_of(submit(one, "double", double(0))) == 0
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")
    assert index_of(submit(other, "double", double(1))) == 1
    assert compilations(tmp_path) == 2


def test_ranks_of_a_torch_that_nobody_knows_yet_compile_for_themselves(
    new_rank: MakePool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = new_rank(), new_rank()

    def refuse(_result: Any, _source: Any) -> Any:
        raise AttributeError("torch has renamed it")

    assert index_of(submit(one, "double", double(0))) == 0
    monkeypatch.setattr(own_device, "for_own_device", refuse)
    jobs = [submit(other, "double", double(2)), submit(other, "sine", sine(2))]
    assert [index_of(job) for job in jobs] == [2, 2]
    assert index_of(submit(other, "sine", sine(4))) == 4
    assert caplog.text.count("kernels are not shared with other ranks any more") == 1


RANK = """
import json, sys
index = int(os.environ["LOCAL_RANK"])
integration.install(max_workers=2)
import torch
from torch._inductor.async_compile import AsyncCompile
triton, futures = AsyncCompile.triton, {}
def noted(self, name, source, *args, **kwargs):
    futures[name] = triton(self, name, source, *args, **kwargs)
    return futures[name]
AsyncCompile.triton = noted
compile_for_gpu(many, index)
kernels = [future.result() for future in futures.values()]
assert {kernel.device_props.index for kernel in kernels} == {index}
assert {kernel.triton_meta["device"] for kernel in kernels} == {index}
print(json.dumps([len(kernels), sum(len(kernel.compile_results) for kernel in kernels)]))
"""


def test_ranks_of_a_launcher_share_a_pool(tmp_path: Path) -> None:
    env = {**os.environ, **program_env(tmp_path), "LOCAL_WORLD_SIZE": "2"}
    del env["TRITON_CACHE_DIR"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FAKE_GPU + RANK],
            env={**env, "LOCAL_RANK": index, "RANK": index},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in ("0", "3")
    ]
    outputs = [rank.communicate(timeout=PATIENCE_S) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    answers = [json.loads(output) for output, _errors in outputs]
    assert answers[0] == answers[1]
    kernels, configurations = answers[0]
    assert kernels > 1
    assert compilations(tmp_path) == configurations
