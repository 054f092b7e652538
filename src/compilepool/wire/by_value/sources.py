"""Source that a file name alone does not lead to, such as that of a notebook's cell.

Tracebacks, `inspect` and Triton look for source in `linecache`. Whoever runs code that is in no
file has put it there: IPython, doctest, an interactive Python, a program that calls `exec`. A
module in a zip file can be read only by its loader. When such code goes by value, its source goes
with it, and is in the `linecache` of the receiver for as long as the code lives.
"""

from __future__ import annotations

import linecache
import os
import weakref
from types import CodeType

from compilepool.light_typing import Any

_BY_CODE = hasattr(linecache, "_getlines_from_code")
"""Whether `linecache` knows source by its code, too, such as that of `python -c` (Python 3.14)."""


class Source:
    """The source of code that is in no file.

    Args:
        file: the name of the file that its code says it is from.
        text: its lines, each with its end, joined by NUL, which no source has.
        is_of_name: whether `linecache` knows it by that name; else by its code, since other code
            has the same name.
    """

    __slots__ = ("__weakref__", "file", "is_of_name", "text")

    def __init__(self, file: str, text: str, is_of_name: bool) -> None:
        self.file = file
        self.text = text
        self.is_of_name = is_of_name

    def __reduce__(self) -> tuple[Any, ...]:
        return received, (self.file, self.text, self.is_of_name)

    def put_there(self) -> None:
        """Put this source into `linecache`, until nothing refers to it any more."""
        # An entry with the time None is never compared with a file (`linecache.checkcache`).
        entry = (len(self.text), None, self.text.split("\0"), self.file)
        _put_there[self.file] = self
        linecache.cache[self.file] = entry
        weakref.finalize(self, _take_out, self.file, entry).atexit = False

    def belongs_to(self, code: CodeType) -> None:
        """Keep this source for as long as `code` lives."""
        if self.is_of_name:
            weakref.finalize(code, _let_go, self).atexit = False
        elif _BY_CODE:
            linecache._register_code(code, self.text.replace("\0", ""), self.file)  # type: ignore[attr-defined] # private


_existing: set[str] = set()
"""Absolute names of files that are there. Looking takes a tenth of the time to pickle a lambda."""


def find(code: CodeType, its_globals: dict[str, Any] | None) -> tuple[str, Source | None]:
    """How another process on this machine finds the source of `code`.

    Args:
        code: the code.
        its_globals: the global variables of a function with that code; None if there is none.

    Returns:
        The name of its file, absolute if there is such a file; and the source if the name does not
        lead to it, or None if nothing else does.
    """
    file = code.co_filename
    try:
        if not _is_put_there(file):
            # Kept only while it is absolute: the program may change its directory.
            if file in _existing:
                return file, None
            if os.path.exists(file):
                if not os.path.isabs(file):
                    return os.path.abspath(file), None
                _existing.add(file)
                return file, None
        lines = linecache.getlines(file, its_globals)
        is_of_name = bool(lines)
        if not lines and _BY_CODE and file.startswith("<"):
            lines = linecache._getlines_from_code(code)  # type: ignore[attr-defined] # private
        return file, Source(file, "\0".join(lines), is_of_name) if lines else None
    except Exception:  # noqa: BLE001 - what a loader raises, or somebody has put into `linecache`
        return file, None


def _is_put_there(file: str) -> bool:
    """Whether `linecache` has not read a file, but has what somebody has put there."""
    entry = linecache.cache.get(file, ())
    return len(entry) > 1 and entry[1] is None


_put_there: weakref.WeakValueDictionary[str, Source] = weakref.WeakValueDictionary()
"""What this process has got from others, and put into `linecache`, by the name of its file."""


def received(file: str, text: str, is_of_name: bool) -> Source:
    """The source that another process has found, which is now in `linecache`.

    What somebody else has put there under the same name stays.
    """
    source = _put_there.get(file)
    if source is not None and source.text == text:
        is_free = file not in linecache.cache  # somebody may have cleared it
    else:
        is_free = source is not None or file not in linecache.cache
        source = Source(file, text, is_of_name)
    if is_of_name and is_free:
        source.put_there()
    return source


def code_of(source: Source, *parts: Any) -> CodeType:
    """The code that `parts` make, with its source."""
    code = CodeType(*parts)
    source.belongs_to(code)
    return code


def _let_go(_: Source) -> None:
    """Do nothing: that this is to be called with a source is what keeps the source."""


def _take_out(file: str, entry: object) -> None:
    if linecache.cache.get(file) is entry:
        linecache.cache.pop(file, None)
