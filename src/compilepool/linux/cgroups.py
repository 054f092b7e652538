"""The cgroups of the calling process, and what they count; see cgroups(7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from compilepool.light_typing import TypeAlias

ReadFile: TypeAlias = Callable[[str], str]
"""A function that returns the text of the file at a path, or raises OSError."""


def read_file(path: str) -> str:
    """Return the text of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def cgroup_directories(controller: str, read: ReadFile = read_file) -> Iterator[str]:
    """The directories of this process's cgroup and the cgroups above it that are mounted.

    Args:
        controller: the controller of a version 1 hierarchy, such as "cpu" or "memory"; "" for
            version 2. See cgroups(7).
        read: the function that reads a file.

    Returns:
        The directories, from the process's own cgroup upwards.
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
        # In a container, the mount may show only a part of the tree, or another part than the one
        # that /proc/self/cgroup names. The mount point is then the closest cgroup that is visible.
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
        The count, or None if the kernel does not tell.
    """
    path = oom_kills_file(read)
    return None if path is None else oom_kills_in(path, read)


def oom_kills_file(read: ReadFile = read_file) -> str | None:
    """The file that counts the processes that the kernel killed because memory ran out.

    The file stays the same while this process stays in its cgroup. Version 2 counts in
    memory.events (`Documentation/admin-guide/cgroup-v2.rst` of the kernel), version 1 in
    memory.oom_control. If no memory cgroup is visible, /proc/vmstat has the count of the whole
    machine.

    Returns:
        The path, or None if no file has a count.
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
    """The count in a file that `oom_kills_file` returned; None if the file has none."""
    try:
        for line in read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
