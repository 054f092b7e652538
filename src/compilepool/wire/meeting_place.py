"""The directory in which the processes of one user meet, on one node.

Each pool has two files there: a socket, and a lock. The kernel gives the lock to one process at a
time, and takes it back when that process dies, flock(2). So no lock is ever stale.

The files of a shared pool are named after its identity. A client that gets the lock makes the
socket, and starts the supervisor with both. The files of a private pool are for those who look at
it; its supervisor makes them itself.
"""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import contextlib
import errno
import fcntl
import os
import stat

from compilepool.linux.descriptors import Opened, away_from_output, close_if_ours, opened_by

_SOCKET = ".sock"
_LOCK = ".lock"
_PRIVATE = "private-"
_BACKLOG = 4096  # the kernel caps it at net.core.somaxconn, listen(2)


class NoMeetingPlace(Exception):
    """There is no directory that is safe to meet in. The text says why."""


class _Held:
    """Descriptors that a forked child must not keep: it would keep a lock, or a socket alive."""

    def __init__(self) -> None:
        self._fds: dict[int, Opened] = {}

    def add(self, fd: int) -> None:
        self._fds[fd] = opened_by(fd)

    def close(self, fd: int) -> None:
        opened = self._fds.pop(fd, None)
        if opened is not None:
            close_if_ours(fd, opened)

    def close_all(self) -> None:
        for fd in list(self._fds):
            self.close(fd)


_held = _Held()
os.register_at_fork(after_in_child=_held.close_all)


class MeetingPlace:
    """The directory, open, as a context manager.

    Everything is done relative to the open directory, so nobody can put another one in its place,
    and its path may be longer than the address of a socket, unix(7).

    Args:
        path: its path; it is made if it is not there.

    Attributes:
        path: its path.
        fd: its descriptor.

    Raises:
        NoMeetingPlace: there is none.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = directory() if path is None else path
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NoMeetingPlace(f"{self.path} is no directory") from None
            raise NoMeetingPlace(f"{self.path}: {error.strerror}") from None
        _held.add(self.fd)
        status = os.fstat(self.fd)
        trouble = ""
        if status.st_uid != os.geteuid():
            trouble = f"belongs to user {status.st_uid}"
        elif status.st_mode & 0o077:
            trouble = f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"
        if trouble:
            self.close()
            raise NoMeetingPlace(f"{self.path} {trouble}; remove it, or have it removed")

    def __enter__(self) -> MeetingPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory."""
        _held.close(self.fd)

    def names(self) -> list[str]:
        """The names of the shared pools that have a socket here."""
        return [name for name in self.all_names() if not is_private(name)]

    def all_names(self) -> list[str]:
        """The names of all pools that have a socket here."""
        files = sorted(os.listdir(self.fd))
        return [file.removesuffix(_SOCKET) for file in files if file.endswith(_SOCKET)]

    def has_socket(self, name: str) -> bool:
        """Whether the file of a pool's socket is there."""
        return os.access(name + _SOCKET, os.F_OK, dir_fd=self.fd, follow_symlinks=False)

    def connect(self, name: str) -> socket.socket | None:
        """Connect to a pool's socket.

        Returns:
            None if nobody listens there, or too many others wait.

        Raises:
            NoMeetingPlace: that is not allowed, or it is not a socket of this user.
        """
        try:
            status = os.lstat(name + _SOCKET, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoMeetingPlace(f"{self.path}/{name}{_SOCKET}: {error.strerror}") from None
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
            raise NoMeetingPlace(f"{self.path}/{name}{_SOCKET} is no socket of this user")
        sock = _new_socket()
        try:
            sock.setblocking(False)
            sock.connect(self._address(name))
        except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise NoMeetingPlace(f"{self.path}/{name}{_SOCKET}: {error.strerror}") from None
        return sock

    def claim(self, name: str) -> Claim | None:
        """Take a pool's lock; None if another process has it.

        Raises:
            NoMeetingPlace: no file can be made here.
        """
        try:
            return Claim.take(self, name)
        except OSError as error:
            raise NoMeetingPlace(f"{self.path}/{name}{_LOCK}: {error.strerror}") from None

    def tidy(self) -> None:
        """Remove what supervisors have left that were killed."""
        for file in os.listdir(self.fd):
            if file.endswith(_LOCK):
                with contextlib.suppress(OSError):
                    claim = Claim.take(self, file.removesuffix(_LOCK))
                    if claim is not None:
                        claim.give_up()

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self.fd}/{name}{_SOCKET}"

    def listen(self, name: str) -> socket.socket:
        """Make a pool's socket, in place of one that nobody listens on. Its lock is ours."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + _SOCKET, dir_fd=self.fd)
        sock = _new_socket()
        try:
            _held.add(sock.fileno())
            sock.bind(self._address(name))
            os.chmod(name + _SOCKET, 0o600, dir_fd=self.fd)
            sock.listen(_BACKLOG)
        except BaseException:
            _held.close(sock.detach())
            raise
        return sock


class Claim:
    """The lock of a pool, which this process has, until the supervisor has it.

    Args:
        place: where it is.
        name: the pool's name there.
        lock_fd: the descriptor of the locked file.
    """

    def __init__(self, place: MeetingPlace, name: str, lock_fd: int) -> None:
        self._place = place
        self.name = name
        self.lock_fd = lock_fd
        self.listener: socket.socket | None = None

    @classmethod
    def take(cls, place: MeetingPlace, name: str) -> Claim | None:
        """Take the lock; None if another process has it. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        fd = os.open(name + _LOCK, flags, 0o600, dir_fd=place.fd)
        _held.add(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed the file meanwhile, and another process may have the
            # lock of the next one.
            if os.fstat(fd).st_ino == os.lstat(name + _LOCK, dir_fd=place.fd).st_ino:
                return cls(place, name, fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            _held.close(fd)
            raise
        _held.close(fd)
        return None

    def listen(self) -> tuple[int, int, int]:
        """Make the socket. Returns what the supervisor gets: socket, lock, and directory."""
        self.listener = self._place.listen(self.name)
        return self.listener.fileno(), self.lock_fd, self._place.fd

    def keep(self) -> tuple[int, int, int]:
        """Take over what this process, the supervisor, has made: socket, lock, and directory."""
        assert self.listener is not None
        return self.listener.detach(), self.lock_fd, os.dup(self._place.fd)

    def hand_over(self) -> None:
        """Close what the supervisor has got."""
        if self.listener is not None:
            _held.close(self.listener.detach())
        _held.close(self.lock_fd)

    def give_up(self) -> None:
        """Remove the files, because there is no supervisor."""
        for file in (self.name + _SOCKET, self.name + _LOCK):
            with contextlib.suppress(OSError):
                os.unlink(file, dir_fd=self._place.fd)
        self.hand_over()


def _new_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = away_from_output(sock.detach())
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)


def new_private_name() -> str:
    """A name for the files of this process's private pool. No other container has the same."""
    return f"{_PRIVATE}{os.getpid()}-{os.urandom(4).hex()}"


def is_private(name: str) -> bool:
    """Whether a pool of this name is private."""
    return name.startswith(_PRIVATE)


def directory(runtime: str | None = None) -> str:
    """Where processes of this user meet: below $XDG_RUNTIME_DIR if there is one, else in /tmp.

    See https://specifications.freedesktop.org/basedir-spec/latest. It must be on this node, so no
    other directory will do.

    Args:
        runtime: the value of XDG_RUNTIME_DIR; None: that of this process.
    """
    if runtime is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        return os.path.join(runtime, "compilepool")
    return f"/tmp/compilepool-{os.geteuid()}"
