"""A text that changes with the installed torch and Triton. A shared pool's identity has it.

torch's own `torch_key` and Triton's `triton_key` say the same by the content of the files. That
takes 1.5 s, and torch must be imported before. Here it takes 30 ms, and nothing is imported. A file
cannot change without its time of change (ctime, which no program can set).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence

_NO_CODE = ("__pycache__", "include")


def fingerprint(packages: Sequence[str] = ("torch", "triton")) -> str:
    """Return a hash of where the packages are installed, and of each file's size and times.

    Args:
        packages: names of top-level packages. One that is not installed counts, too.

    Raises:
        OSError: the files of a package cannot be listed.
    """
    digest = hashlib.sha256()
    for package in packages:
        spec = importlib.util.find_spec(package)
        folders = sorted(spec.submodule_search_locations or ()) if spec else ()
        digest.update(f"{package}\0{len(folders)}\n".encode())
        for folder in folders:
            for path, status in _files(os.path.realpath(folder)):
                times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
                line = f"{path}\0{status.st_size}\0{times}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder, in an order that depends on their names only."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _NO_CODE:
                yield from _files(entry.path)
        else:
            # The link itself if it leads nowhere, or to a folder.
            yield entry.path, entry.stat(follow_symlinks=entry.is_file())
