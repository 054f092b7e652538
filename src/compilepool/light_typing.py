"""The names from `typing` that our modules need, without importing `typing`.

Importing `typing` takes a tenth of the time to the first result of a pool: each process would
import it, and most processes start one after the other. Type checkers see the real names. At run
time, nearly all uses are in annotations, which are not evaluated.
"""

from __future__ import annotations

TYPE_CHECKING = False

__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Final",
    "Generic",
    "Literal",
    "NamedTuple",
    "NoReturn",
    "ParamSpec",
    "Protocol",
    "TypeAlias",
    "TypeVar",
]

if TYPE_CHECKING:
    from typing import (
        Any,
        Final,
        Generic,
        Literal,
        NamedTuple,
        NoReturn,
        ParamSpec,
        Protocol,
        TypeAlias,
        TypeVar,
    )
else:
    from collections import namedtuple

    Any = Final = NoReturn = TypeAlias = object
    ParamSpec = TypeVar = str
    Protocol = object

    class Generic:
        """A base class that takes type parameters, and ignores them."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    Literal = Generic

    class _NamedTupleMaker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)  # the class `NamedTuple` itself
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            if Generic in bases:
                made.__class_getitem__ = Generic.__dict__["__class_getitem__"]
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleMaker):
        """The base class of tuples with named fields. Its subclasses derive from `tuple` only."""
