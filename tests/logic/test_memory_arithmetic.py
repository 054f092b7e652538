"""What memory is free, what a job is expected to take, and how often its limit is looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.linux.cgroups import ReadFile
from compilepool.linux.free_memory import MachineMemory
from compilepool.supervisor.rules.memory import MemoryHistory
from compilepool.supervisor.watch.limits import poll_after_s

GIB = 1 << 30


def files(contents: Mapping[str, str]) -> ReadFile:
    """A reader of these files and no others."""

    def read(path: str) -> str:
        try:
            return contents[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    return read


MEMINFO = {
    "/proc/meminfo": "MemTotal:  20971520 kB\nMemFree:  1024 kB\nMemAvailable:  10485760 kB\n"
}
V2 = {
    "/proc/self/cgroup": "0::/user/job\n",
    "/proc/self/mountinfo": "30 1 0:26 / /cg rw shared:4 - cgroup2 cgroup2 rw\n",
}
V1 = {
    "/proc/self/cgroup": "4:memory:/job\n",
    "/proc/self/mountinfo": "30 1 0:26 / /cg rw shared:4 - cgroup cgroup rw,memory\n",
}
V2_FILES = {
    **V2,
    "/cg/user/job/memory.max": f"{4 * GIB}\n",
    "/cg/user/job/memory.current": f"{2 * GIB}\n",
    "/cg/user/job/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file {GIB // 2}\n",
}


def test_a_twentieth_is_kept_back_and_no_more_than_a_gib() -> None:
    assert MachineMemory(files(MEMINFO)).free() == 9 * GIB
    large = {"/proc/meminfo": MEMINFO["/proc/meminfo"].replace("20971520", "2097152000")}
    assert MachineMemory(files(large)).free() == 9 * GIB
    small = {"/proc/meminfo": "MemTotal: 2097152 kB\nMemFree: 0 kB\nMemAvailable: 0 kB\n"}
    assert MachineMemory(files(small)).free() == -(2 * GIB // 20)


def test_a_cgroup_of_version_2_has_less_and_its_page_cache_counts_as_free() -> None:
    free = MachineMemory(files({**MEMINFO, **V2_FILES})).free()
    assert free == 4 * GIB - 4 * GIB // 20 - 2 * GIB + GIB


def test_the_tightest_of_all_cgroups_above_counts() -> None:
    above = {
        "/cg/user/memory.max": f"{2 * GIB}\n",
        "/cg/user/memory.current": f"{2 * GIB}\n",
        "/cg/user/memory.stat": "inactive_file 0\n",
    }
    assert MachineMemory(files({**MEMINFO, **V2_FILES, **above})).free() == -(2 * GIB // 20)


def test_a_cgroup_of_version_1_is_understood_as_well() -> None:
    v1 = {
        **V1,
        "/cg/job/memory.limit_in_bytes": f"{GIB}\n",
        "/cg/job/memory.usage_in_bytes": f"{GIB // 2}\n",
        "/cg/job/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 4}\n",
        "/cg/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert MachineMemory(files({**MEMINFO, **v1})).free() == GIB - GIB // 20 - GIB // 4


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "nonsense", ""])
def test_a_cgroup_without_a_limit_limits_nothing(limit: str) -> None:
    contents = {**MEMINFO, **V2_FILES, "/cg/user/job/memory.max": limit}
    assert MachineMemory(files(contents)).free() == 9 * GIB


@pytest.mark.parametrize("meminfo", ["", "nonsense", "MemTotal: 1 kB\n", "MemTotal: x kB\n"])
def test_where_nobody_tells_nothing_is_known(meminfo: str) -> None:
    assert MachineMemory(files({})).free() is None
    assert MachineMemory(files({"/proc/meminfo": meminfo})).free() is None


def test_this_machine_tells() -> None:
    free = MachineMemory().free()
    assert free is not None
    assert free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_job_is_expected_to_take_what_the_last_few_of_its_kind_took() -> None:
    history = MemoryHistory()
    assert history.expected("softmax") == 0
    for peak in (GIB, 2 * GIB, 0, 0):
        history.note("softmax", peak)
    assert history.expected("softmax") == 2 * GIB
    assert history.expected("other") == 0
    for peak in (0, 0, 0):
        history.note("softmax", peak)
    assert history.expected("softmax") == 0


@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 1 << 34)), max_size=200))
def test_a_history_expects_no_more_than_was_seen(runs: list[tuple[str, int]]) -> None:
    history = MemoryHistory()
    for kind, peak in runs:
        history.note(kind, peak)
    for kind in {kind for kind, _ in runs}:
        peaks = [peak for other, peak in runs if other == kind]
        assert history.expected(kind) in (0, max(peaks[-4:]))
        if peaks[-1] >= GIB:
            assert history.expected(kind) >= peaks[-1]


def test_a_history_does_not_grow_without_end() -> None:
    history = MemoryHistory()
    for number in range(10_000):
        history.note(str(number), GIB)
    assert len(history._peaks) <= 4096
    assert history.expected("9999") == GIB


@given(st.integers(1, 1 << 40), st.floats(0, 2), st.integers(0, 3))
def test_a_job_is_looked_at_before_it_can_be_far_over_its_limit(
    limit: int, share: float, quiet_looks: int
) -> None:
    used = int(limit * share)
    after_s = poll_after_s(limit, used, quiet_looks)
    assert 0.02 <= after_s <= 0.6
    assert after_s <= poll_after_s(limit, used, 100) <= 2.5 * after_s + 1e-9
    could_have = used + after_s * (2 << 30)
    assert could_have <= max(limit, used) + 0.02 * (2 << 30) + 1
