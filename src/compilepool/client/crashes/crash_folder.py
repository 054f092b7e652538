"""Writes crash folders: everything that is needed to run a job again that crashed its worker.

Crash folders stand in one folder, the crash root, which several processes use at once, without
locks. A crash folder is written under a hidden name and renamed when it is complete. It is renamed
to a hidden name again before it is deleted. Whoever writes a new one deletes the oldest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import itertools
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from compilepool.client.crashes.versions import versions
from compilepool.light_typing import Any
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.pool_config import PoolConfig

MAX_FOLDERS = 32
MAX_BYTES = 256 * 1024 * 1024
"""The largest total size of all crash folders, in bytes."""
MAX_PAYLOAD = 64 * 1024 * 1024
"""The largest payload that is kept, in bytes. A larger one is left out of its folder."""

# The names of the files in a crash folder.
TEXT = "report.txt"
REPORT = "report.json"
CALL = "call.payload"
STARTUP = "startup.payload"
CONFIG = "pool.json"
ENVIRON = "environ.json"

_NAME = re.compile(r"\d{8}T\d{6}Z-[\w.-]+-\d+-\d+", re.ASCII)
_HIDDEN = ".partial-"
_ABANDONED_S = 3600.0  # a hidden folder older than this was left by a process that was killed
_JOB_LENGTH = 40
_CHUNK = 1 << 20

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class CrashedJob:
    """A job that crashed its worker.

    Attributes:
        name: the job's name.
        call: the payload of the job's call; None if the job had ended, so that its call was gone.
        startup: the payload with which the worker started; None if there was none.
        config: the pool's configuration.
        env: the environment of the pool's processes.
        report: the facts of the crash, as a JSON object.
        text: the crash report for people.
    """

    name: str
    call: Payload | None
    startup: Payload | None
    config: PoolConfig
    env: Mapping[str, str]
    report: Mapping[str, Any]
    text: str


def default_root() -> Path:
    """Return the crash root: `$COMPILEPOOL_CRASH_DIR`, or a folder in the user's state directory.

    The state directory is `$XDG_STATE_HOME` or `~/.local/state` (XDG Base Directory Specification).

    Raises:
        OSError: this user has no home directory.
    """
    if chosen := os.environ.get("COMPILEPOOL_CRASH_DIR"):
        return Path(chosen).absolute()
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification says to ignore a relative path
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise OSError(
                errno.ENOENT, f"no place for crash folders ({error}); set COMPILEPOOL_CRASH_DIR"
            ) from None
    return (state / "compilepool" / "crashes").absolute()  # $HOME may be relative


def keep(job: CrashedJob, root: Path | None = None) -> Path:
    """Write the crash folder of a job. Delete the oldest folders that exceed the bounds.

    The function reads the job's payloads and leaves them open, with the offsets of their
    descriptors unchanged.

    Args:
        job: the job.
        root: the crash root, which is made if needed; None: the default root.

    Returns:
        The path of the folder, which only this user can read.

    Raises:
        OSError: the folder cannot be written, the root is a symbolic link, or others could write to
            the root. Nothing is left behind.
    """
    path = default_root() if root is None else root
    root_fd = _open_root(path)
    try:
        hidden = _new_hidden_name()
        os.mkdir(hidden, stat.S_IRWXU, dir_fd=root_fd)
        try:
            os.chmod(hidden, stat.S_IRWXU, dir_fd=root_fd)  # whatever the umask
            now = datetime.datetime.now(datetime.UTC)
            _fill(root_fd, hidden, job, now)
            name = _publish(root_fd, hidden, job.name, now)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True, dir_fd=root_fd)
            raise
        with contextlib.suppress(OSError):  # the new folder is complete: this is no failure
            _prune(root_fd, name)
    finally:
        os.close(root_fd)
    return path / name


def folder_names(root_fd: int) -> list[str]:
    """Return the names of the crash folders in a crash root, the newest first."""
    found = []
    for entry in _entries(root_fd):
        if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it
                found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [name for _, name in sorted(found, reverse=True)]


def _open_root(path: Path) -> int:
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), [path, *path.parents]))
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(folder, stat.S_IRWXU)
            os.chmod(folder, stat.S_IRWXU)  # whatever the umask
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():  # the link may change between calls, and folders are deleted there
            raise OSError(
                errno.ELOOP,
                "the folder for crashes is a symbolic link; set COMPILEPOOL_CRASH_DIR to where it"
                " points, or remove it",
                str(path),
            ) from None
        raise
    status = os.fstat(root_fd)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(root_fd)
        raise PermissionError(
            errno.EACCES,
            "others could write to the folder for crashes; `chmod go-w` it, or set"
            " COMPILEPOOL_CRASH_DIR to one of your own",
            str(path),
        )
    return root_fd


def _publish(root_fd: int, hidden: str, job: str, now: datetime.datetime) -> str:
    """Rename a complete folder to a name that no other folder has. Returns the name."""
    stem = re.sub(r"[^\w.-]", "_", job, flags=re.ASCII)[:_JOB_LENGTH] or "job"
    while True:
        name = f"{now:%Y%m%dT%H%M%SZ}-{stem}-{os.getpid()}-{next(_numbers)}"
        try:
            # This cannot replace another crash folder: none is empty (rename(2)).
            os.rename(hidden, name, src_dir_fd=root_fd, dst_dir_fd=root_fd)
            return name
        except OSError as error:
            # The name is taken: a process of another container has the same pid and the same root.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def _fill(root_fd: int, hidden: str, job: CrashedJob, now: datetime.datetime) -> None:
    folder_fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        left_out = {} if job.call else {CALL: "because the job had ended before the crash"}
        for file, payload in ((CALL, job.call), (STARTUP, job.startup)):
            if payload is not None and (reason := _write_payload(folder_fd, file, payload)):
                left_out[file] = reason
        report = {
            **job.report,
            "job": job.name,
            "time": now.isoformat(timespec="seconds"),
            "versions": versions(job.config.sys_path),
            "left_out": left_out,
        }
        _write(folder_fd, REPORT, json.dumps(report, indent=1).encode())
        _write(folder_fd, TEXT, job.text.encode(errors="backslashreplace"))
        # A secret, and a number that another process has when the job is replayed.
        config = job.config._replace(authkey="", client_pid=0)
        _write(folder_fd, CONFIG, config.payload(inline_limit=sys.maxsize).body)
        _write(folder_fd, ENVIRON, json.dumps(dict(job.env), indent=1).encode())
    finally:
        os.close(folder_fd)


def _write_payload(folder_fd: int, file: str, payload: Payload) -> str:
    """Write a payload of any form as a memfd holds it.

    Returns:
        The reason why the payload is left out; "" if it is written.
    """
    if payload.form is Form.INLINE:
        in_memfd = pack([[payload.body]], inline_limit=-1)
        try:
            return _write_payload(folder_fd, file, in_memfd)
        finally:
            in_memfd.close()
    size = len(payload.body) if payload.fd < 0 else os.fstat(payload.fd).st_size
    if size > MAX_PAYLOAD:
        return f"it has {size} bytes, and no more than {MAX_PAYLOAD} are kept"
    if payload.fd < 0:
        _write(folder_fd, file, payload.body)
        return ""
    with os.fdopen(_create(folder_fd, file), "wb") as target:
        at = 0
        # pread, because all holders of the memfd share its offset.
        while chunk := os.pread(payload.fd, min(_CHUNK, size - at), at):
            target.write(chunk)
            at += len(chunk)
    return ""


def _write(folder_fd: int, file: str, data: bytes) -> None:
    with os.fdopen(_create(folder_fd, file), "wb") as target:
        target.write(data)


def _create(folder_fd: int, file: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(file, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder_fd)
    os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)  # whatever the umask
    return fd


def _prune(root_fd: int, new: str) -> None:
    """Delete the oldest folders that exceed the bounds, and those that killed processes left."""
    names = [new, *(name for name in folder_names(root_fd) if name != new)]
    total = 0
    for count, name in enumerate(names, 1):
        total += _size(root_fd, name)
        if name != new and (count > MAX_FOLDERS or total > MAX_BYTES):
            _delete(root_fd, name)
    for entry in _entries(root_fd):
        if entry.name.startswith(_HIDDEN):
            with contextlib.suppress(FileNotFoundError):
                age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age_s > _ABANDONED_S:
                    shutil.rmtree(entry.name, ignore_errors=True, dir_fd=root_fd)


def _delete(root_fd: int, name: str) -> None:
    hidden = _new_hidden_name()
    with contextlib.suppress(OSError):  # another process was faster
        os.rename(name, hidden, src_dir_fd=root_fd, dst_dir_fd=root_fd)
        shutil.rmtree(hidden, ignore_errors=True, dir_fd=root_fd)


def _size(root_fd: int, name: str) -> int:
    total = 0
    with contextlib.suppress(OSError):  # another process has deleted it
        folder_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
        try:
            for entry in _entries(folder_fd):
                total += entry.stat(follow_symlinks=False).st_size
        finally:
            os.close(folder_fd)
    return total


def _entries(folder_fd: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder_fd) as entries:
        yield from entries


def _new_hidden_name() -> str:
    return _HIDDEN + os.urandom(8).hex()
