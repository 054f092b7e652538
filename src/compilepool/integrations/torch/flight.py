"""Which kernels of several ranks are one: they differ by nothing but the index of the device.

Each rank of a node compiles for a device of its own. Inductor writes the device into the source of
a kernel, as `DeviceProperties(type='cuda', index=3, ...)` in `triton_meta`
(`TritonKernel.codegen_kernel` in torch/_inductor/codegen/triton.py). The index decides nothing that
a compiler does: it names the folder of Triton's cache, if nothing else does. With
`compile_on_one_rank`, which torch has from 2.14 on, it is None.

This module is pure, and does not import torch.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_LOADER = ("torch._inductor.codecache", "_load_triton_kernel_from_source")


class KernelSource(NamedTuple):
    """The source of a kernel, cut in two where it has the index of the device.

    Attributes:
        before: what comes before the index.
        device: the index; None: the kernel is for any device of its type.
        after: what comes after the index.
    """

    before: str
    device: int | None
    after: str

    def for_device(self, device: int | None) -> str:
        """Return the source as Inductor writes it for this or another device."""
        return f"{self.before}{device}{self.after}"


class Flight(NamedTuple):
    """What lets a kernel's job share its run.

    Attributes:
        key: equal for jobs of which each may get the result of any other, see `own_device.py`.
        source: the kernel's source.
        env: the environment variables that Inductor sends along. The key has them.
    """

    key: str
    source: KernelSource
    env: Mapping[str, str | None]


def flight_of(
    is_cuda_available: bool, args: Sequence[object], kwargs: Mapping[str, object]
) -> Flight | None:
    """Return the flight of a call of `_worker_compile_triton`.

    The key has all that the job knows: the source without the device's index, the environment and
    the configuration that Inductor sends along, and whether there is a GPU.

    Args:
        is_cuda_available: the answer that `torch.cuda.is_available` gives in the job.
        args: the arguments of `_worker_compile_triton`
            (torch/_inductor/runtime/compile_tasks.py).
        kwargs: its keyword arguments.

    Returns:
        The flight; None: this is not a call as torch 2.11 to 2.15 makes it, so it must not share.
    """
    if kwargs or len(args) != 3:
        return None
    load_kernel, extra_env, extra_config = args
    kernel = _kernel_of(load_kernel)
    source = kernel and cut_at_index(*kernel)
    if not kernel or not source or type(extra_env) is not dict:
        return None
    env = _without_own_folder(extra_env, source.device)
    is_for_any = source.device is None
    all_of_it = [kernel[0], source.before, is_for_any, source.after, is_cuda_available]
    try:
        text = _canonical([*all_of_it, env, extra_config])
    except ValueError:
        return None
    return Flight(hashlib.sha256(text.encode()).hexdigest(), source, extra_env)


def _kernel_of(load_kernel: object) -> tuple[str, str] | None:
    """Return the name and the source of the kernel that a partial of torch's function loads."""
    if not isinstance(load_kernel, functools.partial) or load_kernel.keywords:
        return None
    loader, args = load_kernel.func, load_kernel.args
    if (getattr(loader, "__module__", ""), getattr(loader, "__name__", "")) != _LOADER:
        return None
    return (args[0], args[1]) if [type(arg) for arg in args] == [str, str] else None


def cut_at_index(name: str, text: str) -> KernelSource | None:
    """Find the index of the device in the source of a kernel, and nothing that looks like it.

    Args:
        name: the name of the kernel's function.
        text: the source of the module that has this function.

    Returns:
        The source, cut there; None: the kernel has no such index, or not just one.
    """
    definition = f"\ndef {name}("
    if text.count(definition) != 1 or "\r" in text or "\f" in text:  # lines end by "\n" only
        return None
    head = text[: text.index(definition)]
    try:
        module = ast.parse(f"{head}{definition}): ...")  # its body would take most of the time
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    kernel = module.body[-1]
    if not isinstance(kernel, ast.FunctionDef) or kernel.name != name:
        return None
    index = _index_of_device(kernel)
    if index is None or index.lineno != index.end_lineno:
        return None
    lines = text.split("\n")
    line = lines[index.lineno - 1].encode()
    start, end = index.col_offset, index.end_col_offset
    before = "\n".join([*lines[: index.lineno - 1], line[:start].decode()])
    after = "\n".join([line[end:].decode(), *lines[index.lineno :]])
    source = KernelSource(before, index.value, after)
    return source if source.for_device(index.value) == text else None


def _without_own_folder(env: dict[Any, Any], index: int | None) -> dict[Any, Any]:
    """Return the environment without unset variables, and without `TRITON_CACHE_DIR` if it says no
    more than where torch would put that folder for this device anyway.

    torch sets the variable when it first makes a kernel in the process (`CachingAutotuner`).
    """
    env = {name: value for name, value in env.items() if value is not None}
    folder = env.get("TORCHINDUCTOR_CACHE_DIR")
    if type(folder) is str and env.get("TRITON_CACHE_DIR") == os.path.join(
        folder, "triton", str(index)
    ):
        del env["TRITON_CACHE_DIR"]
    return env


def _index_of_device(kernel: ast.FunctionDef) -> Any:
    """Return the node of the index in `@triton_heuristics.…(triton_meta={'device': …})`."""
    heuristics = [
        decorator
        for decorator in kernel.decorator_list
        if isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and _is_name(decorator.func.value, "triton_heuristics")
    ]
    if len(heuristics) != 1:
        return None
    meta = _keyword(heuristics[0], "triton_meta")
    if not isinstance(meta, ast.Dict):
        return None
    devices = [
        value
        for key, value in zip(meta.keys, meta.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "device"
    ]
    if len(devices) != 1 or not isinstance(devices[0], ast.Call):
        return None
    device = devices[0]
    if not _is_name(device.func, "DeviceProperties") or device.args:
        return None
    index = _keyword(device, "index")
    if not isinstance(index, ast.Constant):
        return None
    return index if index.value is None or type(index.value) is int else None


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the only argument of that name; None: there is none, or a `**` may hide another."""
    values = [keyword.value for keyword in call.keywords if keyword.arg in (name, None)]
    return values[0] if len(values) == 1 else None


def _canonical(value: object) -> str:
    """Return a text that is equal for equal values, and for no others.

    Raises:
        ValueError: the value has parts of unknown types.
    """
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return f"{type(value).__name__}({','.join(map(_canonical, value))})"
    if isinstance(value, dict) and type(value) is dict:
        items = sorted((_canonical(key), _canonical(item)) for key, item in value.items())
        return f"dict({','.join(f'{key}:{item}' for key, item in items)})"
    raise ValueError(f"a {type(value).__name__} has no canonical text")
