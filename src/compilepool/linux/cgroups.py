"""Where this process's cgroups are, and what they count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from compilepool.light_typing import TypeAlias

ReadFile: TypeAlias = Callable[[str], str]
"""Returns a file's text, or raises OSError."""


def read_file(path: str) -> str:
    """The text of a file. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def cgroup_directories(controller: str, read: ReadFile = read_file) -> Iterator[str]:
    """This process's cgroup and those above it, as far as they are mounted here.

    Args:
        controller: "cpu", "memory" ... of version 1; "" for version 2. See cgroups(7).
        read: reads a file.
    """
    try:
        memberships = read("/proc/self/cgroup").splitlines()
        mounts = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return
    filesystem = "cgroup" if controller else "cgroup2"
    for line in memberships:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            yield from _directories(mounts, path, filesystem, controller)


def _directories(
    mounts: Iterable[str], path: str, filesystem: str, controller: str
) -> Iterator[str]:
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] != filesystem:
            continue
        if controller and controller not in kind[2].split(","):
            continue
        root, mount_point = fields[3].rstrip("/"), fields[4].rstrip("/")
        # In a container the mount may show only a part of the tree, or another one than
        # /proc/self/cgroup names: then the mount point is the closest that can be seen.
        is_inside = path == root or path.startswith(f"{root}/")
        inner = path[len(root) :].strip("/") if is_inside else ""
        while inner:
            yield f"{mount_point}/{inner}"
            inner = inner.rpartition("/")[0]
        yield mount_point
        return


def oom_kills(read: ReadFile = read_file) -> int | None:
    """How many processes of this cgroup the kernel has killed because memory ran out.

    Returns:
        None if the kernel does not tell.
    """
    path = oom_kills_file(read)
    return None if path is None else oom_kills_in(path, read)


def oom_kills_file(read: ReadFile = read_file) -> str | None:
    """The file that counts those kills: the same one as long as this process stays in its cgroup.

    See `admin-guide/cgroup-v2.rst` (memory.events) of the kernel, and the same counter in version
    1's memory.oom_control. Where no memory cgroup is to be seen, it is the one of the whole
    machine, /proc/vmstat.

    Returns:
        None if there is none.
    """
    candidates = [
        f"{directory}/{name}"
        for controller, name in (("", "memory.events"), ("memory", "memory.oom_control"))
        for directory in cgroup_directories(controller, read)
    ]
    for path in (*candidates, "/proc/vmstat"):
        if oom_kills_in(path, read) is not None:
            return path
    return None


def oom_kills_in(path: str, read: ReadFile = read_file) -> int | None:
    """The count in such a file; None if it has none."""
    try:
        for line in read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
