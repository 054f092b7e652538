"""What a job runs on, in versions: to be compared with those of another day."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from compilepool.version import __version__

_PACKAGES = ("torch", "triton", "numba", "cloudpickle")


def versions(path: Sequence[str]) -> dict[str, str]:
    """The versions of what compilations depend on. Imports nothing of it, and starts no process.

    Args:
        path: where packages are looked for, a `sys.path`.

    Returns:
        Version or name by subject; what is not there is left out.
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
    """This interpreter, as exactly as code that was pickled by value needs it."""
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


def _libc_version() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # not glibc
        return ""


def _package_version(package: str, path: Sequence[str]) -> str:
    from importlib import metadata  # slow, and needed after a crash only

    try:
        found = next(iter(metadata.distributions(name=package, path=list(path))), None)
        return "" if found is None else str(found.version)
    except Exception:  # noqa: BLE001 - an installation that is broken raises anything
        return ""
