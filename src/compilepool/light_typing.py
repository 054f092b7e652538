"""What modules of ours need of `typing`, without importing it.

That, with what it imports, would take a tenth of the time from nothing to the first result: each
process of a pool would do it, and most of them one after the other. Type checkers see `typing`;
at run time, nearly all of it stands in annotations only, which nobody evaluates.
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
        """A base class that takes parameters, and forgets them."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    Literal = Generic

    class _NamedTupleMaker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)  # `NamedTuple` itself
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            if Generic in bases:
                made.__class_getitem__ = Generic.__dict__["__class_getitem__"]
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleMaker):
        """Base class of tuples with named fields; what is made is a subclass of `tuple` only."""
