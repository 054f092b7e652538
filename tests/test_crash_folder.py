"""Crash folders: what is in them, who may read them, how many there are."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from compilepool.client.crashes.kept_crash import KeptCrash, UntrustedFolder
from compilepool.client.session.sending import pack_call
from compilepool.client.session.setup import PoolSetup
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from compilepool.wire.serializers import load_payload
from tests.crashed_jobs import crashed_job, keep_call, options

INLINE = Payload(Form.INLINE, b"call")
SOMEBODY = 12345


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def old_folder(root: Path, number: int, size: int, at_s: float) -> Path:
    """A crash folder as an earlier process has left it; its file is a hole."""
    folder = root / f"20200101T000000Z-old-1-{number}"
    folder.mkdir()
    (folder / REPORT).touch()
    os.truncate(folder / REPORT, size)
    os.utime(folder, (at_s, at_s))
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state" / "crashes"
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", str(folder))
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


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_root_that_is_a_link_is_refused(root: Path, tmp_path: Path, is_dangling: bool) -> None:
    there = tmp_path / "there"
    if not is_dangling:
        there.mkdir(0o700)
    root.parent.mkdir()
    root.symlink_to(there)
    with pytest.raises(OSError, match="the folder for crashes is a symbolic link"):
        keep(crashed_job("job", INLINE))
    assert not is_dangling or not there.exists()
    assert is_dangling or not names(there)


def test_a_root_below_a_link_is_good(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(0o700)
    root.parent.symlink_to(there)
    folder = keep(crashed_job("job", INLINE))
    assert names(there / root.name) == {folder.name}


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


def test_the_versions_are_found_without_an_import(root: Path) -> None:
    code = (
        "import sys; from compilepool.client.crashes.versions import versions; "
        "print(versions(sys.path));"
        "assert not {'torch', 'triton', 'numba', 'cloudpickle', 'subprocess'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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


@pytest.mark.parametrize("bits", [0o770, 0o707])
def test_a_root_that_others_can_write_to_is_refused(root: Path, bits: int) -> None:
    root.mkdir(parents=True)
    root.chmod(bits)
    with pytest.raises(PermissionError, match=r"others could write.*COMPILEPOOL_CRASH_DIR"):
        keep(crashed_job("job", INLINE))
    assert not names(root)


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to other users")


def test_a_root_of_somebody_else_is_refused(root: Path) -> None:
    need_root()
    root.mkdir(parents=True)
    os.chown(root, SOMEBODY, SOMEBODY)
    with pytest.raises(PermissionError, match="others could write"):
        keep(crashed_job("job", INLINE))
    assert not names(root)


def test_a_failure_leaves_nothing(root: Path) -> None:
    payload = Payload(Form.MEMFD, b"", 999_999)  # programs close all descriptors that they find
    with pytest.raises(OSError, match="Bad file descriptor"):
        keep(crashed_job("job", payload))
    assert not names(root)


def test_several_processes_may_keep_and_prune_at_once(root: Path) -> None:
    code = (
        "import sys; from tests.test_crash_folder import *\n"
        "sys.stdin.read()\n"  # until all are ready
        "for i in range(20): print(keep(crashed_job('rank', INLINE)).name)"
    )
    gate, to_open = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=gate, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    os.close(gate)
    os.close(to_open)
    kept = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    all_kept = [name for names in kept for name in names]
    assert len(set(all_kept)) == len(all_kept) == 80
    assert names(root) <= set(all_kept)
    assert len(names(root)) == MAX_FOLDERS
    for folder in root.iterdir():
        with KeptCrash.open(folder) as crash:
            crash.call().close()


def link_file(folder: Path) -> None:
    (folder / CALL).rename(folder.parent / "elsewhere")
    (folder / CALL).symlink_to(folder.parent / "elsewhere")


def make_fifo(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG, 0o600)


def give_away(folder: Path) -> None:
    need_root()
    os.chown(folder / ENVIRON, SOMEBODY, -1)


def give_folder_away(folder: Path) -> None:
    need_root()
    os.chown(folder, SOMEBODY, -1)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (link_file, rf"{CALL} is a symbolic link: compilepool did not write it"),
        (make_fifo, rf"{CONFIG} is no regular file: compilepool did not write it"),
        (lambda folder: (folder / "sub").mkdir(), "sub is no regular file: compilepool did not"),
        (
            lambda folder: (folder / STARTUP).touch(0o620),
            f"{STARTUP} can be written to by others, so others could have changed",
        ),
        (lambda folder: (folder / CALL).chmod(0o602), f"{CALL} can be written to by others"),
        (lambda folder: (folder / "new").touch(0o666), "new can be written to by others"),
        (lambda folder: folder.chmod(0o720), r"-\d+ can be written to by others"),
        (give_away, rf"{ENVIRON} belongs to another user \(uid {SOMEBODY}\)"),
        (give_folder_away, rf"-\d+ belongs to another user \(uid {SOMEBODY}\)"),
    ],
)
def test_what_others_could_have_written_is_refused(
    root: Path, harm: Callable[[Path], object], why: str
) -> None:
    folder = keep(crashed_job("job", INLINE))
    before = os.umask(0)
    try:
        harm(folder)
    finally:
        os.umask(before)
    fds = os.listdir("/proc/self/fd")
    with pytest.raises(UntrustedFolder, match=why):
        KeptCrash.open(folder)
    assert os.listdir("/proc/self/fd") == fds


def test_a_link_to_a_folder_is_refused(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(keep(crashed_job("job", INLINE)))
    with pytest.raises(UntrustedFolder, match="link is a symbolic link"):
        KeptCrash.open(link)


def test_what_was_checked_is_what_is_read(root: Path) -> None:
    folder = keep_call(root, abs, -1)
    with KeptCrash.open(folder) as crash:
        for file in (CALL, CONFIG, ENVIRON):
            (folder / file).rename(root / file)
            (folder / file).write_text("of somebody else")
        assert load_payload(crash.call()) == (abs, (-1,), {})
        assert crash.env() == dict(os.environ)
        assert crash.config().cwd == os.getcwd()


def garble(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


def read_all(folder: Path) -> None:
    with KeptCrash.open(folder) as crash, contextlib.closing(crash.call()):
        crash.config()
        crash.env()
        crash.startup()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (shutil.rmtree, "cannot be read: .*No such file"),
        (lambda folder: (folder / REPORT).unlink(), f"is no crash folder: it has no {REPORT}"),
        (garble(REPORT, "{"), f"{REPORT} holds no JSON object"),
        (garble(REPORT, "[1]"), f"{REPORT} holds no JSON object"),
        (garble(REPORT, "[" * 100_000), f"{REPORT} holds no JSON object"),
        (garble(REPORT, '{"job": "x"}'), f"{REPORT} has no job or no time"),
        (garble(REPORT, '{"job": "x", "time": "noon"}'), f"{REPORT} has no job or no time"),
        (lambda folder: (folder / CALL).unlink(), f"has no {CALL}"),
        (lambda folder: os.truncate(folder / CALL, 20), f"{CALL} is damaged: truncated payload"),
        (garble(STARTUP, "x" * 100), f"{STARTUP} is damaged"),
        (lambda folder: (folder / CONFIG).unlink(), f"has no {CONFIG}"),
        (garble(CONFIG, "{}"), f"{CONFIG} is not a pool configuration of this version"),
        (garble(ENVIRON, '{"A": 1}'), f"{ENVIRON} has a value that is no string"),
        (lambda folder: (folder / ENVIRON).unlink(), f"has no {ENVIRON}"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    root: Path, harm: Callable[[Path], object], why: str
) -> None:
    folder = keep(crashed_job("job", INLINE))
    harm(folder)
    for path in folder.glob("*"):
        path.chmod(0o600)
    with pytest.raises(ValueError, match=why) as caught:
        read_all(folder)
    assert not isinstance(caught.value, UntrustedFolder)
    assert str(folder) in str(caught.value)
