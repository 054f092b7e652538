"""Evaluates annotations when a tool reads them; see `light_typing`.

Many names in annotations exist for type checkers only: the module does not import them at run time.
Its source says where they come from, under `if TYPE_CHECKING` and in lines such as
`T = TypeVar("T")`. This module runs just those lines, with the real `typing`, in a namespace apart.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

_names: dict[str, dict[str, object]] = {}
"""By module: the names that mean something else to type checkers than at run time."""


def evaluate(
    annotations: Mapping[str, object], module_name: str, of_typing: Sequence[str]
) -> dict[str, object]:
    """The types that annotations name.

    Args:
        annotations: text by parameter or field, as `from __future__ import annotations` leaves it.
        module_name: the module that they stand in.
        of_typing: the names that the module may have placeholders for, where `typing` has types.

    Returns:
        A type for each. An annotation stays text if it names something that cannot be imported, as
        on other platforms than Linux. All stay text if the module's source is not installed.
    """
    module = sys.modules[module_name]
    names = _names.get(module_name)
    if names is None:
        try:
            source = inspect.getsource(module)
        except OSError:
            return dict(annotations)
        # The first of several threads wins: a TypeVar is one object.
        names = _names.setdefault(module_name, _names_of(module, source, of_typing))
    return {key: _value(text, module, names) for key, text in annotations.items()}


def _value(annotation: object, module: ModuleType, names: dict[str, object]) -> object:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, vars(module), names)
    except NameError:
        return annotation


def _names_of(module: ModuleType, source: str, of_typing: Sequence[str]) -> dict[str, object]:
    names: dict[str, object] = {
        name: getattr(typing, name) for name in of_typing if hasattr(typing, name)
    }
    for statement in _for_type_checkers(source, of_typing):
        with contextlib.suppress(ImportError):
            exec(compile(ast.Module([statement], []), __file__, "exec"), vars(module), names)
    return names


def _for_type_checkers(source: str, of_typing: Sequence[str]) -> Iterator[ast.stmt]:
    """The statements that bind names for type checkers: imports, and uses of `typing`."""
    for statement in ast.parse(source).body:
        match statement:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from statement.body
            case ast.Assign(value=ast.expr() as made) | ast.AnnAssign(value=ast.expr() as made):
                named = {node.id for node in ast.walk(made) if isinstance(node, ast.Name)}
                if not named.isdisjoint(of_typing):
                    yield statement
