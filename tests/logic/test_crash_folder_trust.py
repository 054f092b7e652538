"""Crash folders that others could have written, or that are damaged, are refused."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compilepool.client.crashes.crash_folder import CALL, CONFIG, ENVIRON, REPORT, STARTUP, keep
from compilepool.client.crashes.kept_crash import KeptCrash, UntrustedFolder
from compilepool.wire.serializers import load_payload
from tests.crashed_jobs import INLINE, crashed_job, keep_call, names

SOMEBODY = 12345


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
