"""When a pool for PyTorch is shared, and when the installed torch counts as another one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from compilepool.integrations.torch.installed_files import fingerprint
from compilepool.integrations.torch.settings import is_shared


@pytest.mark.parametrize(
    ("wanted", "variable", "ranks", "shared"),
    [
        (None, "", "", False),
        (None, "", "1", False),
        (None, "", "2", True),
        (None, "", "many", False),
        (None, "0", "8", False),
        (None, "1", "", True),
        (None, "yes", "", False),
        (None, "yes", "8", True),
        (True, "0", "1", True),
        (False, "1", "8", False),
    ],
)
def test_a_pool_is_shared_if_the_program_the_environment_or_the_launcher_says_so(
    monkeypatch: pytest.MonkeyPatch, wanted: bool | None, variable: str, ranks: str, shared: bool
) -> None:
    monkeypatch.setenv("COMPILEPOOL_SHARED", variable)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert is_shared(wanted, by_launcher=True) == shared
    if (variable, wanted) in (("", None), ("yes", None)):
        assert not is_shared(wanted)
    else:
        assert is_shared(wanted) == shared


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "compiler_of_a_test"
    (folder / "deep" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "lib.so", "deep/inner.py"):
        (folder / name).write_text("before")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def of(package: Path) -> str:
    return fingerprint([package.name])


def grow(package: Path) -> None:
    (package / "deep" / "inner.py").write_text("longer than before")


def change_and_hide_it(package: Path) -> None:
    changed = package / "lib.so"
    times = changed.stat()
    while changed.stat().st_ctime_ns == times.st_ctime_ns:  # the kernel's clock ticks every 4 ms
        changed.write_text("BEFORE")
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))


def add(package: Path) -> None:
    (package / "deep" / "more.py").touch()


def remove(package: Path) -> None:
    (package / "deep" / "inner.py").unlink()


def rename(package: Path) -> None:
    (package / "deep").rename(package / "depth")


@pytest.mark.parametrize("change", [grow, change_and_hide_it, add, remove, rename])
def test_any_change_of_a_package_changes_its_fingerprint(
    package: Path, change: Callable[[Path], None]
) -> None:
    before = of(package)
    assert of(package) == before
    change(package)
    assert of(package) != before


def test_compiled_files_do_not_count(package: Path) -> None:
    before = of(package)
    (package / "deep" / "__pycache__" / "inner.pyc").touch()
    assert of(package) == before


def test_links_are_not_followed_in_circles_or_to_nowhere(package: Path) -> None:
    before = of(package)
    (package / "self").symlink_to(package)
    (package / "nowhere").symlink_to(package / "missing")
    assert of(package) not in (before, "")


def test_a_package_in_another_place_or_none_at_all_is_another_one(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(package)
    other = tmp_path / "other"
    package.parent.rename(other)
    assert of(package) != before
    monkeypatch.syspath_prepend(other)
    assert of(package) != before
    assert fingerprint([]) != fingerprint([package.name]) != fingerprint(["none_of_this_name"])
