"""The files that processes have loaded modules from, which may change while a pool lives on."""

from __future__ import annotations

import os

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import Kind, Message, all_are, check
from compilepool.wire.payloads import of_message, pack_json, unpack_json


class LoadedFile(NamedTuple):
    """A file as it was when a module was loaded from it.

    Attributes:
        path: its path.
        size: its size in bytes.
        changed_ns: when its content was changed last, in nanoseconds since the epoch.
    """

    path: str
    size: int
    changed_ns: int

    @classmethod
    def at(cls, path: str) -> LoadedFile:
        """A file as it is now. Raises OSError, ValueError: there is none."""
        status = os.stat(path)
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def has_changed(self) -> bool:
        """Whether the file is another one by now, or has gone."""
        try:
            return LoadedFile.at(self.path) != self
        except (OSError, ValueError):
            return True


def loaded_message(files: list[LoadedFile]) -> Message:
    """The LOADED message for files; the caller closes its descriptors once it is sent."""
    return pack_json(files).message(Kind.LOADED)


def read_loaded(message: Message) -> list[LoadedFile]:
    """The files of a LOADED message, whose descriptors are closed. Raises `ProtocolError`."""
    return unpack_json(of_message(message), _of_values, "a list of loaded files")


def _of_values(values: list[Any]) -> list[LoadedFile]:
    files = [LoadedFile(*each) for each in values]
    check(all_are(str, *(file.path for file in files)))
    check(all(all_are(int, file.size, file.changed_ns) for file in files))
    return files
