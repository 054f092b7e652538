"""A kernel that was compiled for another rank's device, and one that was compiled for the own.

They are compiled for a GPU that is not there, in this process, by what workers call.
"""

from __future__ import annotations

import functools
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch._inductor.codecache import PyCodeCache, _load_triton_kernel_from_source

from compilepool.integrations.torch.flight import KernelSource, cut_at_index
from compilepool.integrations.torch.own_device import UnknownResult, for_own_device
from compilepool.integrations.torch.worker.compile_job import compile_kernel
from tests.kernel_sources import double, sine
from tests.pytorch.differences import differences

# Triton 3.9 says so of itself.
pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")

KERNELS = pytest.mark.parametrize(("name", "source"), [("sine", sine), ("double", double)])
LAUNCHERS = pytest.mark.parametrize("is_static", [False, True])

OF_THE_INDEX = {
    ".CachingAutotuner['device_props'][1]",
    ".CachingAutotuner['triton_meta']['device']",
    "['compile_meta']['device']",
}
OF_THE_SOURCE = {
    ".CachingAutotuner['filename']",
    ".CachingAutotuner['kernel_hash']",
    ".JITFunction['raw_src']",
    ".JITFunction['_fn_name']",
    "._ConstRepr['value']",
}
IN_THE_OTHERS_FOLDER = re.compile(
    r"\['compile_results'\]\[\d\]\.\w+\['kernel'\]\.\w+"
    r"\['(asm'\]\['\w+'\]|kernel'\]|cubin_raw'\]|metadata_group'\]\['\w+\.\w+'\])$"
)
"""The names of source files in debug information, and the files in Triton's cache."""


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(PyCodeCache, "modules", [])
    monkeypatch.setattr(PyCodeCache, "modules_no_attr", {})
    return tmp_path


def compiled(
    name: str, source: str, *, is_static: bool = True, has_folder: bool = True
) -> tuple[Any, int]:
    """What the client of such a job unpickles."""
    cache = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    env: dict[str, str | None] = {"TORCHINDUCTOR_CACHE_DIR": cache}
    if has_folder:
        env["TRITON_CACHE_DIR"] = f"{cache}/triton"
    load = functools.partial(_load_triton_kernel_from_source, name, source)
    before = dict(os.environ)
    PyCodeCache.modules_no_attr.clear()  # no worker has it, as this process is no worker
    result = compile_kernel(False, load, env, {"use_static_triton_launcher": is_static})
    assert dict(os.environ) == before
    kernel, elapsed = pickle.loads(pickle.dumps(result))
    return kernel, elapsed


def cut(name: str, text: str) -> KernelSource:
    found = cut_at_index(name, text)
    assert found is not None
    return found


@KERNELS
@LAUNCHERS
@pytest.mark.parametrize(("theirs", "own"), [(0, 3), (12, 0)])
def test_anothers_kernel_is_as_if_compiled_for_the_own_device(
    name: str, source: Callable[[int], str], is_static: bool, theirs: int, own: int
) -> None:
    another = compiled(name, source(theirs), is_static=is_static)
    expected, _ = compiled(name, source(own), is_static=is_static)
    found = "\n".join(differences(another[0], expected))
    for place in OF_THE_INDEX | OF_THE_SOURCE:
        assert place in found
    kernel, elapsed_us = for_own_device(another, cut(name, source(own)))
    assert differences(kernel, expected) == {}
    assert elapsed_us == another[1]
    assert kernel.device_props.index == own
    assert Path(kernel.filename).read_text() == source(own)


@KERNELS
@LAUNCHERS
def test_without_a_folder_for_triton_each_device_has_one_and_the_kernel_names_the_others(
    name: str, source: Callable[[int], str], is_static: bool, caches: Path
) -> None:
    another = compiled(name, source(0), is_static=is_static, has_folder=False)
    kernel, _ = for_own_device(another, cut(name, source(3)))
    folders = [folder.name for folder in (caches / "inductor" / "triton").iterdir()]
    assert folders == ["0"]
    expected, _ = compiled(name, source(3), is_static=is_static, has_folder=False)
    found = differences(kernel, expected)
    assert found
    assert [path for path in found if not IN_THE_OTHERS_FOLDER.search(path)] == []


@KERNELS
def test_the_own_kernel_stays_as_it_is(name: str, source: Callable[[int], str]) -> None:
    own = compiled(name, source(2))
    again = pickle.loads(pickle.dumps(own))
    assert for_own_device(again, cut(name, source(2))) is again
    assert differences(again, own) == {}


def test_a_kernel_for_any_device_stays_as_it_is() -> None:
    own = compiled("sine", sine(None))
    again = pickle.loads(pickle.dumps(own))
    for_own_device(again, cut("sine", sine(None)))
    assert differences(again, own) == {}
    assert again[0].device_props.index is None


@pytest.mark.parametrize("theirs", [0, 1])
def test_what_autotuning_has_chosen_meanwhile_holds(theirs: int) -> None:
    own = cut("sine", sine(1))
    tuned, _ = for_own_device(compiled("sine", sine(1)), own)
    assert len(tuned.compile_results) == 2
    best = tuned.compile_results[1].config
    tuned.save_cache_hook(best, 1000)
    kernel, _ = for_own_device(compiled("sine", sine(0)), cut("sine", sine(theirs)))
    if theirs == 0:  # another device's choice
        assert len(kernel.compile_results) == 2
        return
    assert [str(one.config) for one in kernel.compile_results] == [str(best)]
    expected, _ = compiled("sine", sine(1))  # its worker looks, too
    found = differences(kernel, expected)
    # The look-up leaves its mark on a configuration, `_load_cached_autotuning`.
    assert [path for path in found if "['config'].Config keys" not in path] == []


def test_what_is_chosen_for_the_own_device_is_kept_where_its_own_worker_looks() -> None:
    kernel, _ = for_own_device(compiled("sine", sine(0)), cut("sine", sine(1)))
    kernel.save_cache_hook(kernel.compile_results[0].config, 1000)
    assert len(compiled("sine", sine(1))[0].compile_results) == 1
    assert len(compiled("sine", sine(0))[0].compile_results) == 2


def test_a_worker_forgets_the_variables_and_knobs_of_a_job(caches: Path) -> None:
    from triton import knobs

    library = knobs.nvidia.libdevice_path
    load = functools.partial(_load_triton_kernel_from_source, "double", double())
    theirs = str(caches / "theirs")
    env = {"TORCHINDUCTOR_CACHE_DIR": theirs, "TRITON_LIBDEVICE_PATH": str(caches / "none.bc")}
    before = dict(os.environ)
    with pytest.raises(FileNotFoundError, match=r"none\.bc"):
        compile_kernel(False, load, env, {"use_static_triton_launcher": True})
    assert dict(os.environ) == before
    assert knobs.nvidia.libdevice_path == library
    assert [entry.name for entry in caches.iterdir()] == ["theirs"]


def test_a_result_of_another_source_is_refused() -> None:
    with pytest.raises(UnknownResult, match="its module is"):
        for_own_device(compiled("sine", sine(0)), cut("sine", sine(3) + "# changed\n"))
    with pytest.raises(UnknownResult, match="it is a dict"):
        for_own_device(({}, 5), cut("sine", sine(3)))
    torn = compiled("sine", sine(0))
    torn[0].compile_results[1].compile_meta["device"] = 7
    with pytest.raises(UnknownResult, match="its device is 0"):
        for_own_device(torn, cut("sine", sine(3)))
