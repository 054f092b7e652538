"""Reads crash folders, but only those that nobody else can have written.

A replay runs the code that a folder names. So everything is checked on descriptors that are then
read from: nobody can exchange a file between the check and the read.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
from pathlib import Path
from types import TracebackType

from compilepool.client.crashes.crash_folder import CALL, CONFIG, ENVIRON, REPORT, STARTUP, TEXT
from compilepool.light_typing import Any
from compilepool.text import name_of_end, printable
from compilepool.wire.messages import Form, Kind, ProtocolError
from compilepool.wire.payloads import Payload, Unpacked
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import MAX_SEED

_FILES = (TEXT, REPORT, CALL, STARTUP, CONFIG, ENVIRON)


class UntrustedFolder(ValueError):
    """Somebody else can have written a crash folder, and so choose the code that a replay runs."""


class KeptCrash:
    """An open crash folder that this user or root has written. A context manager.

    Attributes:
        folder: the path of the folder.
        report: the facts of the crash, with `time`, `versions` and `left_out`, as a JSON object.
        job: the job's name.
        time: when it was kept.
        ending: how its worker ended: "SIGSEGV", "exit code 7".
        place: the call that crashed; empty if that is unknown, or was not kept in earlier versions.
        size: the bytes of its files.
        seed: what random number generators started from; None if from the system.
    """

    def __init__(self, folder: Path, fds: dict[str, int]) -> None:
        self.folder = folder
        self._fds = fds
        self.size = sum(os.fstat(fd).st_size for fd in fds.values())
        self.report = self._json(REPORT)
        try:
            self.job = str(self.report["job"])
            self.time = datetime.datetime.fromisoformat(self.report["time"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{folder / REPORT} has no job or no time") from None
        self.ending = name_of_end(self.report.get("signal"), self.report.get("exitcode"))
        seed = self.report.get("seed")
        self.seed = seed if isinstance(seed, int) and 0 <= seed <= MAX_SEED else None
        self.place = printable(str(self.report.get("where") or ""))

    @property
    def local_time(self) -> str:
        """When it was kept, on this user's clock, as text."""
        return f"{self.time.astimezone():%Y-%m-%d %H:%M:%S}"

    @classmethod
    def open(cls, folder: Path) -> KeptCrash:
        """Open a crash folder.

        Args:
            folder: the path of the folder.

        Raises:
            UntrustedFolder: others could have written to the folder.
            ValueError: this is no crash folder, it cannot be read, or it is damaged.
        """
        fds: dict[str, int] = {}
        try:
            folder_fd = _open_trusted(folder, folder, is_folder=True)
            try:
                for name in os.listdir(folder_fd):
                    fds[name] = _open_trusted(name, folder / name, folder_fd=folder_fd)
            finally:
                os.close(folder_fd)
            if REPORT not in fds:
                raise ValueError(f"{folder} is no crash folder: it has no {REPORT}")
            return cls(folder, fds)
        except BaseException as error:
            _close(fds)
            if isinstance(error, OSError):
                raise ValueError(f"{folder} cannot be read: {error}") from None
            raise

    def config(self) -> PoolConfig:
        """Return the pool's configuration.

        Raises:
            ValueError: it is missing or damaged.
        """
        try:
            return PoolConfig.of_payload(Payload(Form.INLINE, self._read(CONFIG)))
        except ProtocolError:
            what = "is not a pool configuration of this version of compilepool"
            raise ValueError(f"{self.folder / CONFIG} {what}") from None

    def env(self) -> dict[str, str]:
        """Return the environment of the pool's processes.

        Raises:
            ValueError: it is missing or damaged.
        """
        env = self._json(ENVIRON)
        if not all(isinstance(value, str) for value in env.values()):
            raise ValueError(f"{self.folder / ENVIRON} has a value that is no string")
        return env

    def call(self) -> Payload:
        """Return the payload of the job's call, in a memfd that the caller owns.

        Raises:
            ValueError: the payload is missing, damaged or was left out.
        """
        return self._payload(CALL)

    def startup(self) -> Payload | None:
        """The payload of what the worker started with, in a memfd that belongs to the caller.

        Returns:
            None if the worker started with nothing.

        Raises:
            ValueError: it is missing, damaged, or was left out.
        """
        is_needed = STARTUP in self._fds or STARTUP in self._left_out()
        return self._payload(STARTUP) if is_needed else None

    def close(self) -> None:
        """Close the descriptors of the folder's files."""
        _close(self._fds)

    def __enter__(self) -> KeptCrash:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def _payload(self, file: str) -> Payload:
        if reason := self._left_out().get(file):
            raise ValueError(f"{self.folder} cannot be replayed: {file} was left out, {reason}")
        spilled = Payload(Form.MEMFD, self._read(file))
        try:
            with Unpacked(spilled):
                pass  # only to see whether it can be unpacked
        except ProtocolError as error:
            raise ValueError(f"{self.folder / file} is damaged: {error}") from None
        (fd,) = spilled.message(Kind.JOB).fds
        return Payload(Form.MEMFD, b"", fd)

    def _left_out(self) -> dict[str, str]:
        left_out = self.report.get("left_out")
        return left_out if isinstance(left_out, dict) else {}

    def _json(self, file: str) -> dict[str, Any]:
        data = self._read(file)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ValueError(f"{self.folder / file} holds no JSON object")
        return value

    def _read(self, file: str) -> bytes:
        if file not in self._fds:
            raise ValueError(f"{self.folder} has no {file}")
        with open(self._fds[file], "rb", closefd=False) as opened:
            opened.seek(0)
            return opened.read()


def _open_trusted(
    name: str | Path, path: Path, *, folder_fd: int | None = None, is_folder: bool = False
) -> int:
    """Open a file or folder that only this user or root can have written.

    Raises:
        UntrustedFolder: somebody else can have written it, or it is neither.
        OSError: it does not exist, or must not be read.
    """
    # O_PATH opens nothing yet, open(2). To open a device or a FIFO could already do harm.
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        if why := _why_untrusted(os.fstat(place), is_folder):
            raise UntrustedFolder(f"{path} {why}")
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)


def _why_untrusted(status: os.stat_result, is_folder: bool) -> str:
    """Return the reason why a file or folder is not trusted; "" if it is trusted."""
    is_link = stat.S_ISLNK(status.st_mode)
    if is_folder and not stat.S_ISDIR(status.st_mode):
        return f"is {'a symbolic link' if is_link else 'no folder'}; name the crash folder itself"
    if not is_folder and not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if is_link else "no regular file"
        return f"is {kind}: compilepool did not write it, so nothing in the folder is trusted"
    if status.st_uid not in (os.geteuid(), 0):
        what = f"belongs to another user (uid {status.st_uid})"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = "can be written to by others"
    else:
        return ""
    return (
        f"{what}, so others could have changed what a replay runs; if you know that they have not,"
        " make a copy that only you can write to"
    )


def _close(fds: dict[str, int]) -> None:
    while fds:
        _, fd = fds.popitem()
        with contextlib.suppress(OSError):
            os.close(fd)
