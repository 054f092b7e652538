"""The names from `typing` that our modules need, without importing `typing`.

Importing `typing` takes a tenth of the time to the first result of a pool: each process would
import it, and most processes start one after the other. Type checkers see the real names. At run
time, nearly all uses are in annotations, which stay text until a tool reads them.

Tools that read them get the real types: a NamedTuple, and what is decorated with
`lazy_annotations`, has annotations that are evaluated when they are first read. The module
`type_hints` evaluates them, and is imported only then.
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
    "lazy_annotations",
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
    from _collections import _tuplegetter  # as `collections.namedtuple` has it

    Any = Final = NoReturn = TypeAlias = object
    ParamSpec = TypeVar = str
    Protocol = object

    class Generic:
        """A base class that takes type parameters, and ignores them."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    Literal = Generic

    class _Record(tuple):
        """What the classes made by `NamedTuple` share; see `collections.namedtuple`.

        There, each class has its own copy of these methods, which takes 3 KB and 0.1 ms.
        """

        __slots__ = ()

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise TypeError(f"Got unexpected field names: {list(changes)!r}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            values = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self):
            return tuple(self)

        __replace__ = _replace

    class _NamedTupleMaker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)  # the class `NamedTuple` itself
            fields = body.get("__annotations__", {})
            defaults = {field: body.pop(field) for field in fields if field in body}
            arguments = ", ".join(fields)
            create = eval(
                f"lambda _cls, {arguments}: _new(_cls, ({arguments + ',' * bool(fields)}))",
                {"_new": tuple.__new__},
            )
            create.__name__, create.__qualname__ = "__new__", f"{name}.__new__"
            create.__module__ = body["__module__"]
            create.__defaults__ = tuple(defaults.values())
            for index, field in enumerate(fields):
                body[field] = _tuplegetter(index, "")
            body |= {
                "__slots__": (),
                "__new__": create,
                "_fields": tuple(fields),
                "_field_defaults": defaults,
                "__match_args__": tuple(fields),
            }
            if Generic in bases:
                body["__class_getitem__"] = Generic.__dict__["__class_getitem__"]
            made = type(name, (_Record,), body)
            annotations = _LazyAnnotations(fields, body["__module__"])
            annotations.give_to(made)
            annotations.give_to(create)
            return made

    class NamedTuple(metaclass=_NamedTupleMaker):
        """Base class of tuples with named fields; what is made is a subclass of `tuple` only."""


_FAKE_GLOBALS, _STRING = 2, 4  # of `annotationlib.Format`, Python 3.14


def _evaluated_first(read: Any) -> Any:
    """A method of `_LazyAnnotations` that evaluates, then does what `dict` does."""

    def read_evaluated(self: _LazyAnnotations, *arguments: object) -> object:
        self.evaluate()
        return read(self, *arguments)

    return read_evaluated


class _LazyAnnotations(dict[str, object]):  # noqa: PLW1641 - no dict has a hash
    """The annotations of a function or class: text until they are read, types from then on.

    `typing.get_type_hints` and `inspect` read them by `dict(annotations)` or `annotations.items()`.
    `dict` calls `keys` and `__getitem__` of a subclass that overrides `__iter__`. A pickle has the
    text, because pickle would look for a TypeVar in its module, which has a placeholder.

    Args:
        texts: the annotations as the source has them.
        module: the name of the module that they stand in.
    """

    __slots__ = ("_module", "_texts")

    def __init__(self, texts: dict[str, object], module: str) -> None:
        super().__init__(texts)
        self._module = module
        self._texts: dict[str, object] | None = None
        """The text, once these are types."""

    def give_to(self, annotated: Any) -> None:
        """Make these the annotations of a function or class."""
        annotated.__annotations__ = self
        if hasattr(annotated, "__annotate__"):  # Python 3.14, where `functools.wraps` copies it
            annotated.__annotate__ = self.annotate

    def annotate(self, format: int) -> dict[str, object]:
        """The annotations in a format of `annotationlib`, for `__annotate__` of Python 3.14."""
        if format == _FAKE_GLOBALS:
            raise NotImplementedError
        return self._as_text() if format == _STRING else self

    def evaluate(self) -> None:
        """Turn the text into types, once."""
        if self._texts is None:
            from compilepool.type_hints import evaluate

            texts = self._as_text()
            self.update(evaluate(texts, self._module, __all__))
            self._texts = texts

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (self._as_text(),)

    def _as_text(self) -> dict[str, object]:
        return dict(dict.items(self)) if self._texts is None else {**self._texts}

    __eq__ = _evaluated_first(dict.__eq__)
    __getitem__ = _evaluated_first(dict.__getitem__)
    __iter__ = _evaluated_first(dict.__iter__)
    __repr__ = _evaluated_first(dict.__repr__)
    copy = _evaluated_first(dict.copy)
    get = _evaluated_first(dict.get)
    items = _evaluated_first(dict.items)
    keys = _evaluated_first(dict.keys)
    values = _evaluated_first(dict.values)


_Public = TypeVar("_Public")


def lazy_annotations(public: _Public) -> _Public:
    """Decorate a public function or class, so that tools get the types of its annotations.

    The methods and properties of a class are included. A function needs it if an annotation names
    what its module has for type checkers only: a name from here, or from under `if TYPE_CHECKING`.
    `tests/processes/test_type_hints.py` fails where it is missing.
    """
    for member in (public, *vars(public).values()):
        annotated = getattr(member, "fget", member)
        if texts := getattr(annotated, "__annotations__", None):
            _LazyAnnotations(texts, annotated.__module__).give_to(annotated)
    return public
