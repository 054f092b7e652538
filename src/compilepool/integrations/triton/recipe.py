"""`Recipe`: what a worker needs to compile a kernel, since what Triton compiles cannot be pickled.

The worker compiles into Triton's cache on the disk. It must come to the same key as the program, so
the recipe has everything that the key depends on (`triton/runtime/cache.py`, `get_cache_key`) but
environment variables, which travel as those of the job.
"""

from __future__ import annotations

import hashlib
import os

from triton import knobs
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.compiler.compiler import make_backend
from triton.runtime.cache import get_cache_key, get_cache_manager

from compilepool.light_typing import Any, NamedTuple

_GROUPS = {
    name: group for name, group in vars(knobs).items() if isinstance(group, knobs.base_knobs)
}
"""Triton's settings: `knobs.compilation`, `knobs.nvidia` and so on."""

_SETTINGS = (bool, int, float, str, type, type(None))
"""The types of what a program may set there; all else is hooks, which belong to the program."""

_PREFIXES = ("TRITON_", "LLVM_", "MLIR_", "AMDGCN_", "NVPTX_")
"""Of variables that `libtriton.so` reads by itself."""

_MAX_NAME = 120
_MAX_FILE = 150  # characters of a kernel's name that Triton uses (`triton/compiler/compiler.py`)


class Recipe(NamedTuple):
    """A kernel, and how to compile it.

    Attributes:
        source_type: Triton's `ASTSource`, or that of Gluon.
        kernel: the `JITFunction`.
        signature: Triton's type of each argument, by name.
        constants: the value of each constant, by its place among the arguments.
        attributes: what is known of arguments, such as that they are divisible by 16.
        target: the `GPUTarget`.
        options: those of the backend, such as `num_warps`.
        knobs: what this program has set in `triton.knobs`, by group.
    """

    source_type: Any
    kernel: Any
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    target: Any
    options: dict[str, Any]
    knobs: dict[str, dict[str, Any]]

    @staticmethod
    def of(source: Any, target: Any, options: dict[str, Any]) -> Recipe:
        """The recipe of an `ASTSource`, by this program's settings."""
        return Recipe(
            type(source),
            source.fn,
            source.signature,
            source.constants,
            source.attrs,
            target,
            options,
            {name: _settings(group) for name, group in _GROUPS.items()},
        )

    def source(self) -> Any:
        """The `ASTSource` that `triton.compile` takes."""
        return self.source_type(self.kernel, self.signature, self.constants, self.attributes)

    def name(self) -> str:
        """What the job is called: the kernel with its constants, warps and stages."""
        names = self.kernel.arg_names
        parts = {_path(names, path): _short(value) for path, value in self.constants.items()}
        for option in ("num_warps", "num_ctas", "num_stages", "maxnreg"):
            if self.options.get(option) is not None:
                parts[option] = str(self.options[option])
        text = ", ".join(f"{name}={value}" for name, value in parts.items())
        return f"{self.kernel.__name__}[{text}]"[:_MAX_NAME]


def groups_with(values: dict[str, dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The namespace of each group of Triton's settings, with the values that it is to have."""
    return [(vars(group), values.get(name, {})) for name, group in _GROUPS.items()]


def environment() -> dict[str, str | None]:
    """The environment variables that Triton reads, as they are in this process; None: unset."""
    names = {each.key for group in _GROUPS.values() for each in group.knob_descriptors.values()}
    names |= get_cache_invalidating_env_vars().keys()
    names |= {name for name in os.environ if name.startswith(_PREFIXES)}
    return {name: os.environ.get(name) for name in sorted(names)}


def is_cached(source: Any, target: Any, options: dict[str, Any]) -> bool:
    """Whether a kernel is in Triton's cache, where `triton.compile` will find it.

    Not if the program has a hook that changes the stages: from Triton 3.7 on, it changes the key.
    """
    if knobs.compilation.always_compile or knobs.runtime.add_stages_inspection_hook is not None:
        return False
    backend = make_backend(target)
    parsed = backend.parse_options(dict(options))
    key = get_cache_key(source, backend, parsed, get_cache_invalidating_env_vars())
    file = f"{source.name[:_MAX_FILE]}.json"
    group = get_cache_manager(hashlib.sha256(key.encode()).hexdigest()).get_group(file)
    return group is not None and file in group


def _settings(group: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(group).items() if isinstance(value, _SETTINGS)}


def _path(names: list[str], path: tuple[int, ...]) -> str:
    """An argument, or a part of one that is a tuple."""
    return names[path[0]] + "".join(f"[{place}]" for place in path[1:])


def _short(value: Any) -> str:
    return str(getattr(value, "__name__", value))
