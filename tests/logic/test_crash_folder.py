"""Crash folders: what is in them, who may read them, how many there are."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool.client.connection.setup import PoolSetup
from compilepool.client.crashes.crash_folder import (
    CALL,
    CONFIG,
    ENVIRON,
    MAX_BYTES,
    MAX_FOLDERS,
    MAX_PAYLOAD,
    REPORT,
    STARTUP,
    TEXT,
    default_root,
    keep,
)
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.client.session.packing import pack_call
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from compilepool.wire.serializers import load_payload
from tests.crashed_jobs import INLINE, crashed_job, keep_call, names, options


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def old_folder(root: Path, number: int, size: int, at_s: float) -> Path:
    """A crash folder as an earlier process has left it; its file is a hole."""
    folder = root / f"20200101T000000Z-old-1-{number}"
    folder.mkdir()
    (folder / REPORT).touch()
    os.truncate(folder / REPORT, size)
    os.utime(folder, (at_s, at_s))
    return folder


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    assert tmp_path.exists()  # it is not made under this umask
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_the_root_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", "crashes")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "crashes"
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", "")
    assert default_root() == tmp_path / "state" / "compilepool" / "crashes"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    at_home = tmp_path / "home" / ".local" / "state" / "compilepool" / "crashes"
    assert default_root() == at_home
    monkeypatch.setenv("HOME", "relative")
    assert default_root() == tmp_path / "relative" / ".local" / "state" / "compilepool" / "crashes"


def test_what_is_imported_from_does_not_depend_on_where_a_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    (place / "lib").mkdir(parents=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.path", ["", "lib", "of a hook", "/nowhere", *sys.path])
    kept = PoolSetup(options()).config.sys_path
    assert kept[:4] == [str(place), str(place / "lib"), "of a hook", "/nowhere"]
    shutil.rmtree(place)
    kept = PoolSetup(options()).config.sys_path
    assert kept[:3] == ["lib", "of a hook", "/nowhere"]


@pytest.mark.usefixtures("umask")
def test_only_the_user_can_read_it_whatever_the_umask(root: Path) -> None:
    folder = keep(crashed_job("softmax", INLINE))
    assert folder.parent == root
    assert [mode(path) for path in (root.parent, root, folder)] == [0o700] * 3
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        [TEXT, REPORT, CALL, CONFIG, ENVIRON], 0o600
    )


def test_it_says_what_has_happened_on_which_versions(root: Path) -> None:
    report = {"signal": 11, "message": "the worker was killed", "log": "\x1b[31m"}
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    folder = keep(crashed_job("softmax", INLINE, report=report))
    assert (folder / TEXT).read_text() == "what has happened"
    written = json.loads((folder / REPORT).read_text())
    assert written.items() >= {**report, "job": "softmax"}.items()
    assert written["versions"]["python"] == sys.version
    assert re.match(r"\d+\.\d+", written["versions"]["cloudpickle"])
    with KeptCrash.open(folder) as crash:
        assert crash.report == written
        assert crash.job == "softmax"
        assert before <= crash.time <= datetime.datetime.now(datetime.UTC)
        assert crash.size == sum(path.stat().st_size for path in folder.iterdir())


def test_what_a_pool_was_like_comes_back(root: Path) -> None:
    env = {"PATH": "/bin", "ODD": "\udcff\n=", "EMPTY": ""}
    pool = options(initializer=print, initargs=("x",), preload=["json"])
    folder = keep_call(root, abs, -1, of=pool, env=env)
    with KeptCrash.open(folder) as crash:
        assert crash.env() == env
        config = crash.config()
        startup = crash.startup()
    assert (config.preload, config.sys_path, config.cwd) == (["json"], sys.path, os.getcwd())
    assert startup is not None
    assert load_payload(startup) == (None, print, ("x",))
    with KeptCrash.open(keep_call(root, abs, -1)) as crash:
        assert crash.startup() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: pack_call("job", abs, (-1,), {}, None),
        lambda: pack_call("job", bytes, (bytearray(1000),), {}, None),
        lambda: pack_call("job", bytes, (b"x" * 3_000_000,), {}, None),
        lambda: pack_call("job", bytes, (b"x" * 3_000_000,), {}, None).spill(),
    ],
    ids=["inline", "inline with buffers", "memfd", "spilled memfd"],
)
def test_every_form_of_a_call_comes_back(root: Path, make: Callable[[], Payload]) -> None:
    payload = make()
    if payload.fd >= 0:
        os.lseek(payload.fd, 5, os.SEEK_SET)
    folder = keep(crashed_job("job", payload))
    if payload.fd >= 0:
        assert os.lseek(payload.fd, 0, os.SEEK_CUR) == 5
    with KeptCrash.open(folder) as crash:
        call = crash.call()
    assert call.fd >= 0
    assert load_payload(call) == load_payload(payload)


def test_a_huge_payload_is_left_out_and_the_folder_says_so(root: Path) -> None:
    fd = os.memfd_create("huge")
    try:
        os.truncate(fd, MAX_PAYLOAD + 1)
        huge = Payload(Form.MEMFD, b"", fd)
        folder = keep(crashed_job("job", huge, startup=huge))
        assert names(folder) == {TEXT, REPORT, CONFIG, ENVIRON}
        os.truncate(fd, MAX_PAYLOAD)
        assert CALL in names(keep(crashed_job("job", huge)))
    finally:
        os.close(fd)
    with KeptCrash.open(folder) as crash:
        with pytest.raises(ValueError, match=rf"{CALL} was left out, it has {MAX_PAYLOAD + 1} by"):
            crash.call()
        with pytest.raises(ValueError, match=f"{STARTUP} was left out"):
            crash.startup()


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_job_name_makes_a_folder(
    tmp_path_factory: pytest.TempPathFactory, job_name: str
) -> None:
    root = tmp_path_factory.mktemp("root")
    folder = keep(crashed_job(job_name, INLINE), root)
    assert folder.parent == root
    assert names(root) == {folder.name}
    stem = f"-{os.getpid()}-"
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-[A-Za-z0-9_.-]{{1,40}}{stem}\d+", folder.name)
    with KeptCrash.open(folder) as crash:
        assert crash.job == job_name


def test_names_differ_within_a_second(root: Path) -> None:
    folders = {keep(crashed_job("job", INLINE)) for _ in range(20)}
    assert names(root) == {folder.name for folder in folders}
    assert len(folders) == 20


def test_the_folder_of_a_process_with_the_same_pid_is_not_overwritten(root: Path) -> None:
    """As of another container, which has the same root."""
    first = keep(crashed_job("job", INLINE)).name
    number = int(first.rpartition("-")[2])
    now = datetime.datetime.now(datetime.UTC)
    theirs = set()
    for second in range(MAX_FOLDERS - 4):
        time = now + datetime.timedelta(seconds=second)
        folder = root / f"{time:%Y%m%dT%H%M%SZ}-job-{os.getpid()}-{number + 1}"
        folder.mkdir()
        (folder / "theirs").touch()
        theirs.add(folder.name)
    new = keep(crashed_job("job", INLINE)).name
    assert int(new.rpartition("-")[2]) == number + 2
    assert names(root) == {first, new, *theirs}
    assert all(names(root / folder) == {"theirs"} for folder in theirs)


@settings(max_examples=30)
@given(st.lists(st.integers(0, MAX_BYTES // 3), max_size=MAX_FOLDERS + 4))
def test_the_newest_stay_within_the_bounds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    root = tmp_path_factory.mktemp("root")
    old = [old_folder(root, i, size, at_s=1e9 - i) for i, size in enumerate(sizes)]
    new = keep(crashed_job("new", INLINE), root)
    room = MAX_BYTES - sum(path.stat().st_size for path in new.iterdir())
    expected = {new.name}
    for folder, size in list(zip(old, sizes, strict=True))[: MAX_FOLDERS - 1]:
        room -= size
        if room < 0:
            break
        expected.add(folder.name)
    assert names(root) == expected
    shutil.rmtree(root)


def test_the_new_folder_stays_even_if_the_clock_was_set_back(root: Path) -> None:
    root.mkdir(parents=True)
    old = [old_folder(root, i, 1, at_s=time.time() + 1e6 + i) for i in range(MAX_FOLDERS)]
    new = keep(crashed_job("new", INLINE))
    assert names(root) == {new.name, *(folder.name for folder in old[1:])}


def test_only_crash_folders_are_deleted(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "precious").mkdir()
    (root / "20200101T000000Z-file-1-1").touch()
    (root / "20200101T000000Z-link-1-1").symlink_to(root / "precious")
    mine = names(root)
    for i in range(2 * MAX_FOLDERS):
        old_folder(root, i, 1, at_s=1e9 - i)
    keep(crashed_job("new", INLINE))
    assert names(root) >= mine
    assert len(names(root) - mine) == MAX_FOLDERS


def test_what_killed_processes_have_left_goes_and_what_is_being_written_stays(root: Path) -> None:
    root.mkdir(parents=True)
    for name, age_s in (("left", 1e5), ("written", 10)):
        folder = root / f".partial-{name}"
        folder.mkdir()
        (folder / TEXT).touch()
        os.utime(folder, (time.time() - age_s,) * 2)
    new = keep(crashed_job("new", INLINE))
    assert names(root) == {new.name, ".partial-written"}


def test_a_failure_leaves_nothing(root: Path) -> None:
    payload = Payload(Form.MEMFD, b"", 999_999)  # programs close all descriptors that they find
    with pytest.raises(OSError, match="Bad file descriptor"):
        keep(crashed_job("job", payload))
    assert not names(root)
