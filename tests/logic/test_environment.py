"""The environment variables that a job and a pool's processes have."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from compilepool.client.connection.setup import environment_of_pool
from compilepool.linux.cpus import usable_cpus
from compilepool.worker.execution import environment

NAMES = st.sampled_from(["COMPILEPOOL_A", "COMPILEPOOL_B", "COMPILEPOOL_C"])
VALUES = st.none() | st.text(st.characters(blacklist_characters="\0", codec="utf-8"))


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_the_environment_is_as_before_whatever_it_was(
    before: dict[str, str | None], changes: dict[str, str | None]
) -> None:
    clean = dict(os.environ)
    with environment(tuple(before.items())):
        expected = dict(os.environ)
        with environment(tuple(changes.items())):
            assert all(os.environ.get(name) == value for name, value in changes.items())
        assert dict(os.environ) == expected
    assert dict(os.environ) == clean


def test_thread_pools_in_workers_have_a_fair_share_unless_the_user_says_how_many() -> None:
    count = "OMP_NUM_THREADS"
    assert environment_of_pool({}, {}, 1)[count] == str(usable_cpus())
    assert environment_of_pool({}, {}, 1000)[count] == "1"
    assert environment_of_pool({count: "7"}, {}, 1000)[count] == "7"
    assert environment_of_pool({count: "7"}, {count: "5"}, 1000)[count] == "5"
    assert count not in environment_of_pool({count: "7"}, {count: None}, 1000)
    assert environment_of_pool({"A": "1"}, {}, 1)["A"] == "1"
