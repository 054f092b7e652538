"""Code that goes by value keeps its source, wherever that is."""

from __future__ import annotations

import gc
import importlib
import inspect
import linecache
import os
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.wire.serializers import dump, dump_payload, load_payload

TEXT = "def made():\n    return lambda: 1 / 0  # in no file\n"
NAME = "<made by a test>"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    gc.collect()
    linecache.cache.pop(NAME, None)


def run(text: str, name: str = NAME) -> dict[str, Any]:
    """Run code as IPython does: its source is in `linecache`, and nowhere else."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)
    return names


def sent(value: object) -> Any:
    """A value as another process gets it, whose `linecache` is empty."""
    payload = dump_payload(value)
    linecache.clearcache()
    return load_payload(payload)


def file_of(function: Callable[..., object]) -> str:
    return function.__code__.co_filename


def stream(value: object) -> bytes:
    return b"".join(map(bytes, dump(value)[0]))


def test_a_function_in_a_file_names_it_and_takes_no_source_along() -> None:
    function = sent(lambda: 1 / 0)  # a lambda
    assert file_of(function) == __file__
    assert "# a lambda" in inspect.getsource(function)
    assert b"# a lambda" not in stream(function)


def test_a_relative_name_means_the_file_that_it_means_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(TEXT, "script.py", "exec"), names)
    function = sent(names["made"])
    monkeypatch.chdir("/")
    assert inspect.getsource(function) == TEXT
    assert file_of(function) == file_of(function()) == str(tmp_path / "script.py")


def test_a_name_that_leads_nowhere_stays() -> None:
    for name in ("<string>", "nowhere.py", "/nowhere/at/all.py", ""):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(TEXT, name, "exec"), names)
        assert file_of(sent(names["made"])) == name


def test_source_that_is_in_no_file_goes_with_the_code() -> None:
    function = sent(run(TEXT)["made"])
    assert inspect.getsource(function) == TEXT
    with pytest.raises(ZeroDivisionError) as raised:
        function()()
    assert "return lambda: 1 / 0  # in no file" in "".join(traceback.format_exception(raised.value))
    linecache.checkcache()
    assert inspect.getsource(sent(function)) == TEXT  # and goes on from there


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_lines_arrive_as_they_were_put_there(lines: list[str]) -> None:
    made = run(TEXT)["made"]
    linecache.cache[NAME] = (0, None, lines, NAME)
    function = sent(made)
    assert linecache.getlines(file_of(function)) == lines


def test_what_somebody_has_put_there_counts_more_than_a_file_of_that_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "cell.py").write_text("# another\n")
    function = sent(run(TEXT, str(tmp_path / "cell.py"))["made"])
    assert inspect.getsource(function) == TEXT
    del function
    gc.collect()
    assert linecache.getlines(str(tmp_path / "cell.py")) == ["# another\n"]


def test_source_is_in_a_payload_once() -> None:
    names = run(TEXT + "def other():\n    return made\n")
    assert stream([names["made"], names["other"], names["made"]()]).count(b"# in no file") == 1


def test_source_is_kept_as_long_as_any_code_that_it_belongs_to() -> None:
    made = run(TEXT)["made"]
    payloads = [dump_payload(made) for _ in range(3)]
    linecache.clearcache()
    first, second, third = map(load_payload, payloads)
    assert linecache.getlines(NAME)
    inner: CodeType = next(
        const for const in third.__code__.co_consts if isinstance(const, CodeType)
    )
    del first, third
    gc.collect()
    assert inspect.getsource(second) == TEXT
    del second
    gc.collect()
    assert linecache.getlines(NAME)
    del inner
    gc.collect()
    assert NAME not in linecache.cache


def test_what_is_there_already_stays() -> None:
    payload = dump_payload(run(TEXT)["made"])
    own = linecache.cache[NAME] = (1, None, ["mine\n"], NAME)
    function = load_payload(payload)
    assert linecache.cache[NAME] is own
    del function
    gc.collect()
    assert linecache.cache[NAME] is own


def test_of_two_sources_of_one_name_the_later_holds() -> None:
    earlier = dump_payload(run(TEXT)["made"])
    later = dump_payload(run("# changed\n" + TEXT)["made"])
    linecache.clearcache()
    first = load_payload(earlier)
    second = load_payload(later)
    del first
    gc.collect()
    assert inspect.getsource(second) == TEXT


def test_a_module_in_a_zip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("a_zipped_module.py", TEXT)
    monkeypatch.syspath_prepend(tmp_path / "zipped.zip")
    made = importlib.import_module("a_zipped_module").made
    function = made()  # has no name that pickle could refer to
    monkeypatch.delitem(sys.modules, "a_zipped_module")
    arrived = sent(function)
    assert "1 / 0  # in no file" in inspect.getsource(arrived)
    assert file_of(arrived) == os.path.join(tmp_path, "zipped.zip", "a_zipped_module.py")


class Loader:
    """A loader that fails."""

    def get_source(self, _: str) -> str:
        raise RuntimeError("no source")


def test_a_loader_that_fails_costs_the_source_alone() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "__loader__": Loader()}
    exec(compile(TEXT, "/nowhere/loaded.py", "exec"), names)
    assert file_of(sent(names["made"])) == "/nowhere/loaded.py"
