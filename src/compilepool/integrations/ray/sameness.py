"""What the program and a node must have in common, and in what they differ."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping

from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.version import __version__

_PACKAGES = ("cloudpickle", "torch", "triton")
_NONE = "not installed"


def facts() -> dict[str, str]:
    """What this process has. Imports none of the packages.

    A source checkout that was edited has the version of one that was not. So the version of
    compilepool comes with a digest of its files.
    """
    found = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{sys.platform} {platform.machine()}",
    }
    found.update({name: _version(name) for name in _PACKAGES})
    found["compilepool"] = f"{__version__} (files {_files()})"
    return found


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """In what a node differs from the program, as phrases."""
    return [
        f"its {name} is {theirs.get(name, _NONE)}, the program's is {ours.get(name, _NONE)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, _NONE) != theirs.get(name, _NONE)
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _NONE


@functools.cache
def _files() -> str:
    root = os.path.join(PACKAGE_ROOT, "compilepool")
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    data = file.read()
                digest.update(f"{os.path.relpath(path, root)} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:12]
