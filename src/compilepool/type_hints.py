"""What annotations of ours mean: imported when a tool reads some, see `light_typing`.

A module of ours has `typing` and much else for type checkers only. What these see stands in its
source, and nowhere else: here it is read from there.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from types import ModuleType

from compilepool import light_typing

_TYPING = {name: getattr(typing, name) for name in light_typing.__all__ if hasattr(typing, name)}
_names: dict[str, dict[str, object]] = {}
"""Of each module: the names that type checkers see in it otherwise than those who run it."""


def evaluate(annotations: Mapping[str, object], module_name: str) -> dict[str, object]:
    """The types that annotations name.

    Args:
        annotations: as `__annotations__` has them under `from __future__ import annotations`.
        module_name: the module that they stand in.

    Returns:
        As `__annotations__` has them without it. What names something that cannot be had here, on
        a platform without pools or without the module's source, stays text.
    """
    module = sys.modules[module_name]
    names = _names.get(module_name)
    if names is None:
        try:
            source = inspect.getsource(module)
        except OSError:
            return dict(annotations)
        # The first of several threads wins: a TypeVar is one object.
        names = _names.setdefault(module_name, _names_of(module, source))
    return {key: _value(text, module, names) for key, text in annotations.items()}


def _value(annotation: object, module: ModuleType, names: dict[str, object]) -> object:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, vars(module), names)
    except NameError:
        return annotation


def _names_of(module: ModuleType, source: str) -> dict[str, object]:
    names: dict[str, object] = {**_TYPING}
    for statement in _for_type_checkers(source):
        with contextlib.suppress(ImportError):
            exec(compile(ast.Module([statement], []), __file__, "exec"), vars(module), names)
    return names


def _for_type_checkers(source: str) -> Iterator[ast.stmt]:
    """What a module imports for type checkers, and what it makes of `typing`, such as a TypeVar."""
    for statement in ast.parse(source).body:
        match statement:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from statement.body
            case ast.Assign(value=ast.expr() as made) | ast.AnnAssign(value=ast.expr() as made):
                named = {node.id for node in ast.walk(made) if isinstance(node, ast.Name)}
                if not named.isdisjoint(_TYPING):
                    yield statement
