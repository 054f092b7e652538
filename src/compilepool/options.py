"""What a pool and a job can be told, checked at once: a wrong option never reaches a process."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compilepool.wire.serializers import Serializer

START_METHODS = ("fork", "spawn")


@dataclasses.dataclass(frozen=True)
class PoolOptions:
    """The options of a pool; see `CompilePool` for what they mean.

    Raises:
        TypeError: something is of the wrong type; the message names all that is wrong.
        ValueError: only values are wrong; likewise.
    """

    max_workers: int | None
    preload: Sequence[str]
    initializer: Callable[..., object] | None
    initargs: Sequence[Any]
    start_method: str
    serializer: Serializer | None
    capture: bool = True
    log_dir: str | os.PathLike[str] | None = None
    native_tracebacks: bool = True
    keep_crashes: bool = True

    def __post_init__(self) -> None:
        _raise_all([*self._type_problems()], [*self._value_problems()])

    def _type_problems(self) -> Iterable[str]:
        if not (self.max_workers is None or _is_int(self.max_workers)):
            yield f"max_workers must be an int or None, not {self.max_workers!r}"
        if not _is_sequence_of_names(self.preload):
            yield f"preload must be a list of module names, not {self.preload!r}"
        if not (self.initializer is None or callable(self.initializer)):
            yield f"initializer must be callable, not {self.initializer!r}"
        if isinstance(self.initargs, str | bytes) or not isinstance(self.initargs, Sequence):
            yield f"initargs must be a tuple, not {self.initargs!r}"
        for flag in ("capture", "native_tracebacks", "keep_crashes"):
            if not isinstance(getattr(self, flag), bool):
                yield f"{flag} must be True or False, not {getattr(self, flag)!r}"
        if not isinstance(self.log_dir, str | os.PathLike | None):
            yield f"log_dir must be a path or None, not {self.log_dir!r}"
        for method in ("dumps", "loads"):
            is_there = callable(getattr(self.serializer, method, None))
            if self.serializer is not None and not is_there:
                yield f"serializer must have a method {method!r}, and {self.serializer!r} has none"

    def _value_problems(self) -> Iterable[str]:
        if _is_int(self.max_workers) and self.max_workers is not None and self.max_workers <= 0:
            yield f"max_workers must be greater than 0, not {self.max_workers}"
        if _is_sequence_of_names(self.preload):
            for name in self.preload:
                if not _is_module(name):
                    yield f"preload names {name!r}, and there is no such module"
        if self.start_method not in START_METHODS:
            yield f"start_method must be 'fork' or 'spawn', not {self.start_method!r}"
        if self.log_dir is not None and self.capture is False:
            yield "log_dir gets the output of jobs only if it is captured, and capture is False"


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """The options of a job; see `CompilePool.options` for what they mean.

    Raises:
        TypeError: an option is of the wrong type.
    """

    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str | None):
            raise TypeError(f"name must be a str or None, not {self.name!r}")


def _raise_all(type_problems: list[str], value_problems: list[str]) -> None:
    problems = "; ".join(type_problems + value_problems)
    if type_problems:
        raise TypeError(problems)
    if value_problems:
        raise ValueError(problems)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sequence_of_names(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(name, str) for name in value)
    )


def _is_module(name: str) -> bool:
    """Whether the top-level package of `name` can be found. Imports nothing."""
    top = name.partition(".")[0]
    if not all(part.isidentifier() for part in name.split(".")) or top == "__main__":
        return False
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # ValueError: in sys.modules, and without a spec
        return False
