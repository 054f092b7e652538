"""Versions of everything that a compilation depends on, to compare a replay with the crash."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from compilepool.version import __version__

_PACKAGES = ("torch", "triton", "numba", "cloudpickle")


def versions(path: Sequence[str]) -> dict[str, str]:
    """Collect the versions that compilations depend on. Imports no package and starts no process.

    Args:
        path: a `sys.path`, to look for packages.

    Returns:
        Version or name by subject. Subjects that are not found are left out.
    """
    system = os.uname()
    found = {
        "compilepool": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "implementation": implementation(),
        "kernel": f"{system.sysname} {system.release} {system.version}",
        "machine": system.machine,
        "libc": _libc_version(),
    }
    for package in _PACKAGES:
        found[package] = _package_version(package, path)
    return {subject: version for subject, version in found.items() if version}


def implementation() -> str:
    """Return the interpreter's name and version, as far as code pickled by value depends on it."""
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


def _libc_version() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # not glibc
        return ""


def _package_version(package: str, path: Sequence[str]) -> str:
    from importlib import metadata  # slow to import, and needed only after a crash

    try:
        found = next(iter(metadata.distributions(name=package, path=list(path))), None)
        return "" if found is None else str(found.version)
    except Exception:  # noqa: BLE001 - a broken installation may raise anything
        return ""
