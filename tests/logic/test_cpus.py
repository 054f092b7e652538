"""How many CPUs a process may use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.linux.cpus import cgroup_quota

V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNTS = """\
30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
"""
V1_MEMBERSHIPS = """\
12:cpuset:/
4:cpu,cpuacct:/user.slice/job
1:name=systemd:/user.slice/job
0::/user.slice/job
"""


def quota(membership: str, mounts: str, files: dict[str, str] | None = None) -> float | None:
    """`cgroup_quota` on a machine with these files; `files` are below /sys/fs/cgroup."""
    present = {"/proc/self/cgroup": membership, "/proc/self/mountinfo": mounts}
    for name, content in (files or {}).items():
        present[f"/sys/fs/cgroup/{name}"] = content

    def read(path: str) -> str:
        try:
            return present[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    return cgroup_quota(read)


def test_a_quota_is_in_cpus() -> None:
    files = {"job/cpu.max": "150000 100000\n"}
    assert quota("0::/job\n", V2_MOUNT, files) == 1.5


def test_max_is_no_quota() -> None:
    assert quota("0::/job\n", V2_MOUNT, {"job/cpu.max": "max 100000\n"}) is None


def test_the_root_group_has_no_quota_file() -> None:
    assert quota("0::/\n", V2_MOUNT) is None


def test_the_smallest_quota_above_counts() -> None:
    files = {
        "a/b/c/cpu.max": "max 100000",
        "a/b/cpu.max": "800000 100000",
        "a/cpu.max": "200000 50000",
        "cpu.max": "600000 100000",
    }
    assert quota("0::/a/b/c", V2_MOUNT, files) == 4
    assert quota("0::/a/b/other", V2_MOUNT, files) == 4
    assert quota("0::/", V2_MOUNT, files) == 6


def test_a_quota_of_another_group_does_not_count() -> None:
    files = {"a/cpu.max": "100000 100000", "ab/cpu.max": "300000 100000"}
    assert quota("0::/ab", V2_MOUNT, files) == 3


def test_version_1_has_quota_and_period_in_files_of_the_cpu_controller() -> None:
    files = {
        "cpu,cpuacct/user.slice/job/cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct/user.slice/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/user.slice/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/user.slice/cpu.cfs_period_us": "100000\n",
        # Not of the cpu controller, whatever they say:
        "cpuset/cpu.cfs_quota_us": "1",
        "cpuset/cpu.cfs_period_us": "100000",
        "memory/user.slice/job/cpu.cfs_quota_us": "1",
        "memory/user.slice/job/cpu.cfs_period_us": "100000",
    }
    assert quota(V1_MEMBERSHIPS, V1_MOUNTS, files) == 2.5


def test_version_1_says_minus_one_for_no_quota() -> None:
    files = {
        "cpu,cpuacct/user.slice/job/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/user.slice/job/cpu.cfs_period_us": "100000",
    }
    assert quota(V1_MEMBERSHIPS, V1_MOUNTS, files) is None


def test_both_versions_may_be_mounted() -> None:
    mounts = V1_MOUNTS + "33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = {
        "cpu,cpuacct/user.slice/cpu.cfs_quota_us": "300000",
        "cpu,cpuacct/user.slice/cpu.cfs_period_us": "100000",
        "unified/user.slice/job/cpu.max": "200000 100000",
    }
    assert quota(V1_MEMBERSHIPS, mounts, files) == 2
    del files["unified/user.slice/job/cpu.max"]
    assert quota(V1_MEMBERSHIPS, mounts, files) == 3


def test_in_a_container_the_mount_point_is_the_containers_group() -> None:
    # Without a cgroup namespace: /proc/self/cgroup names the group as the host sees it.
    mount = "29 23 0:26 /docker/4af1 /sys/fs/cgroup ro - cgroup2 cgroup rw"
    files = {"cpu.max": "200000 100000", "inner/cpu.max": "100000 100000"}
    assert quota("0::/docker/4af1", mount, files) == 2
    assert quota("0::/docker/4af1/inner", mount, files) == 1


def test_in_a_cgroup_namespace_the_group_is_the_root() -> None:
    assert quota("0::/", V2_MOUNT, {"cpu.max": "200000 100000"}) == 2


@pytest.mark.parametrize("group", ["/", "/docker/other", "/../other"])
def test_a_group_that_the_mount_does_not_show_is_looked_for_at_the_mount_point(group: str) -> None:
    mount = "29 23 0:26 /docker/4af1 /sys/fs/cgroup ro - cgroup2 cgroup rw"
    assert quota(f"0::{group}", mount, {"cpu.max": "200000 100000"}) == 2


def test_without_proc_there_is_no_quota() -> None:
    def read(path: str) -> str:
        raise PermissionError(path)

    assert cgroup_quota(read) is None


@pytest.mark.parametrize(
    "content", ["", "max", "100000", "a b", "100000 0", "100000 100000 1", "\0", "1.5 1"]
)
def test_a_quota_that_cannot_be_read_is_none(content: str) -> None:
    assert quota("0::/job", V2_MOUNT, {"job/cpu.max": content}) is None
    files = {
        "cpu,cpuacct/user.slice/job/cpu.cfs_quota_us": content,
        "cpu,cpuacct/user.slice/job/cpu.cfs_period_us": "0",
    }
    assert quota(V1_MEMBERSHIPS, V1_MOUNTS, files) is None


LINES = st.lists(
    st.one_of(
        st.text(alphabet="0:/ -.acgroup2\\", max_size=40),
        st.sampled_from([V2_MOUNT, "0::/job", "0::", ":", "::", "1:cpu:", "1:cpu:job", " - "]),
    ),
    max_size=4,
).map("\n".join)


@given(LINES, LINES)
def test_malformed_tables_are_survived(memberships: str, mounts: str) -> None:
    files = {"cpu.max": "200000 100000", "job/cpu.max": "100000 100000"}
    assert quota(memberships, mounts, files) in (None, 1, 2)
