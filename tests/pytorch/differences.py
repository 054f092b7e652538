"""Where two objects differ, in everything that they refer to."""

from __future__ import annotations

import enum
import inspect
import threading
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch.utils._ordered_set import OrderedSet

_ATOMS = (
    *(str, bytes, int, float, complex, type(None), type, enum.Enum),
    *(FunctionType, inspect.Signature, inspect.Parameter),
)

_LOCKS = (type(threading.Lock()), type(threading.RLock()))


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """The values that differ, by the path to each.

    Raises:
        TypeError: it cannot look into an object.
    """
    return dict(_differences(one, other, "", set(), []))


def _differences(
    one: Any, other: Any, path: str, seen: set[int], alive: list[Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(one, _LOCKS) and isinstance(other, _LOCKS):
        return
    if isinstance(one, _ATOMS) or type(one) is not type(other):
        if type(one) is not type(other) or one != other:
            yield path, (one, other)
        return
    if id(one) in seen:
        return
    seen.add(id(one))
    alive.append(one)  # so that nothing else gets its id
    for name, (part, counterpart) in _parts(one, other).items():
        yield from _differences(part, counterpart, f"{path}{name}", seen, alive)


def _parts(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    if isinstance(one, dict):
        both = {f"[{name!r}]": (one[name], other[name]) for name in one if name in other}
        return {" keys": (sorted(map(repr, one)), sorted(map(repr, other))), **both}
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return {" length": (len(one), len(other))} | {f"[{n}]": p for n, p in enumerate(pairs)}
    if isinstance(one, MethodType):
        return {"()": (one.__func__, other.__func__), ".__self__": (one.__self__, other.__self__)}
    if isinstance(one, set | frozenset | OrderedSet):
        return {" elements": (str(sorted(one - other)), str(sorted(other - one)))}
    if hasattr(one, "__dict__"):
        return {f".{type(one).__name__}": (vars(one), vars(other))}
    raise TypeError(f"cannot look into a {type(one)}")
