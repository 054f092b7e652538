"""`WhenImported` calls back when a module has been imported, and nobody else notices."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import pkgutil
import runpy
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from compilepool.any_process.when_imported import WhenImported
from tests.proc import PATIENCE_S, wait_until

MODULES = ("watched", "watched.inner", "package", "package.watched", "other")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`. Whatever a test does, `sys.meta_path` is as before at its end."""
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)
    left = [finder for finder in sys.meta_path if finder not in finders]
    sys.meta_path[:] = finders
    assert not left


@pytest.fixture
def calls() -> list[ModuleType]:
    """The modules that a hook was called with."""
    return []


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module "other", or nothing.

    Args:
        find: what finds it.
    """

    def __init__(self, find: Callable[[], importlib.machinery.ModuleSpec | None]) -> None:
        self._find = find

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return self._find() if fullname == "other" else None


def test_it_calls_once_with_the_module_when_that_is_complete(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").write_text("value = 1")
    seen: list[int] = []

    def call(module: ModuleType) -> None:
        calls.append(module)
        seen.append(module.value)

    before = list(sys.meta_path)
    WhenImported("watched", call)
    assert not calls
    module = importlib.import_module("watched")
    assert calls == [module]
    assert seen == [1]
    assert sys.meta_path == before
    assert importlib.import_module("watched") is module
    assert len(calls) == 1


def test_it_calls_before_the_importer_has_the_module(folder: Path) -> None:
    (folder / "watched.py").write_text("value = 'of the module'")
    (folder / "other.py").write_text("from watched import value")
    WhenImported("watched", lambda module: vars(module).update(value="of the hook"))
    assert importlib.import_module("other").value == "of the hook"


def test_it_calls_in_the_thread_that_imports_and_others_wait(folder: Path) -> None:
    (folder / "watched.py").write_text("value = 'of the module'")
    callers: list[threading.Thread] = []
    is_called = threading.Event()
    values: list[str] = []

    def call(module: ModuleType) -> None:
        callers.append(threading.current_thread())
        is_called.set()
        assert wait_until(waits)
        vars(module).update(value="of the hook")

    def waits() -> bool:
        """Whether the second one is where importlib waits for another thread's import."""
        frame = sys._current_frames().get(second.ident or 0)
        return frame is not None and (frame.f_code.co_name, frame.f_code.co_filename) == (
            "acquire",
            "<frozen importlib._bootstrap>",
        )

    def come_second() -> None:
        assert is_called.wait(PATIENCE_S)
        values.append(importlib.import_module("watched").value)

    WhenImported("watched", call)
    first = threading.Thread(target=importlib.import_module, args=["watched"])
    second = threading.Thread(target=come_second)
    for thread in (first, second):
        thread.start()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert callers == [first]
    assert values == ["of the hook"]


def test_it_does_not_call_for_other_modules(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "other.py").write_text("value = 1")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "watched.py").touch()
    hook = WhenImported("watched", calls.append)
    for name in ("other", "package", "package.watched"):
        importlib.import_module(name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("watched")
    assert not calls
    assert hook in sys.meta_path
    hook.cancel()


def test_it_calls_for_a_module_of_a_package(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "watched.py").touch()
    WhenImported("package.watched", calls.append)
    importlib.import_module("package")
    assert not calls
    module = importlib.import_module("package.watched")
    assert calls == [module]


def test_it_calls_for_a_package_when_only_a_module_of_it_is_wanted(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched").mkdir()
    (folder / "watched" / "__init__.py").touch()
    (folder / "watched" / "inner.py").touch()
    WhenImported("watched", calls.append)
    importlib.import_module("watched.inner")
    assert calls == [sys.modules["watched"]]


def test_it_does_not_call_when_it_was_cancelled(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "watched.py").write_text("value = 1")
    before = list(sys.meta_path)
    hook = WhenImported("watched", calls.append)
    hook.cancel()
    assert sys.meta_path == before
    hook.cancel()
    assert importlib.import_module("watched").value == 1
    assert not calls


def test_it_can_be_cancelled_after_it_has_called(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "watched.py").touch()
    hook = WhenImported("watched", calls.append)
    importlib.import_module("watched")
    hook.cancel()
    assert len(calls) == 1


def test_it_does_not_call_when_it_was_cancelled_while_the_module_is_imported(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").write_text("import other; other.hook.cancel()")
    (folder / "other.py").touch()
    hook = WhenImported("watched", calls.append)
    vars(importlib.import_module("other")).update(hook=hook)
    importlib.import_module("watched")
    assert not calls


def test_two_that_wait_for_the_same_module_are_both_called(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").touch()
    WhenImported("watched", calls.append)
    WhenImported("watched", calls.append)
    module = importlib.import_module("watched")
    assert calls == [module, module]
    assert type(module.__loader__) is importlib.machinery.SourceFileLoader


def test_one_of_two_can_be_cancelled(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "watched.py").touch()
    hooks = [WhenImported("watched", calls.append) for _ in range(2)]
    hooks[0].cancel()
    importlib.import_module("watched")
    assert len(calls) == 1


def test_the_module_has_the_loader_that_it_would_have_without_us(
    folder: Path, calls: list[ModuleType]
) -> None:
    source = "while_it_is_loaded = __loader__, __spec__.loader\n\ndef function(): ...\n"
    (folder / "watched.py").write_text(source)
    WhenImported("watched", calls.append)
    module = importlib.import_module("watched")
    del sys.modules["watched"]
    unhooked = importlib.import_module("watched")
    assert module is not unhooked
    for each in (module, unhooked):
        loader = each.__loader__
        assert type(loader) is importlib.machinery.SourceFileLoader
        assert each.__spec__ is not None
        assert each.__spec__.loader is loader
        assert each.while_it_is_loaded == (loader, loader)
    assert module.__spec__ == unhooked.__spec__
    assert module.__file__ == unhooked.__file__ == str(folder / "watched.py")
    assert module.__cached__ == unhooked.__cached__


def test_the_source_of_the_module_can_be_had(folder: Path, calls: list[ModuleType]) -> None:
    source = "def function():\n    return 1\n"
    (folder / "watched.py").write_text(source)
    WhenImported("watched", calls.append)
    module = importlib.import_module("watched")
    assert inspect.getsource(module) == inspect.getsource(module.function) == source


def test_a_module_in_a_zip_file(
    folder: Path, calls: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "modules.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("watched.py", "value = 1\n")
    monkeypatch.syspath_prepend(path)
    WhenImported("watched", calls.append)
    module = importlib.import_module("watched")
    assert calls == [module]
    assert type(module.__loader__).__name__ == "zipimporter"
    assert inspect.getsource(module) == "value = 1\n"


def test_who_only_looks_whether_the_module_is_there_has_not_imported_it(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").touch()
    WhenImported("watched", calls.append)
    spec = importlib.util.find_spec("watched")
    assert spec is not None
    assert spec.origin == str(folder / "watched.py")
    assert not calls
    module = importlib.import_module("watched")
    assert calls == [module]


def test_the_module_can_be_run_as_a_program_meanwhile(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").write_text("name = __name__")
    hook = WhenImported("watched", calls.append)
    assert runpy.run_module("watched", run_name="__main__")["name"] == "__main__"
    assert not calls
    hook.cancel()


def test_the_data_of_the_package_can_be_read_meanwhile(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched").mkdir()
    (folder / "watched" / "__init__.py").touch()
    (folder / "watched" / "data").write_bytes(b"data")
    WhenImported("watched", calls.append)
    assert pkgutil.get_data("watched", "data") == b"data"
    assert calls == [sys.modules["watched"]]  # which has imported it


def test_an_import_that_fails_does_not_call_and_the_next_one_does(
    folder: Path, calls: list[ModuleType]
) -> None:
    mended = folder / "mended"
    (folder / "watched.py").write_text(
        f"import os\nif not os.path.exists({str(mended)!r}): raise LookupError('not yet')"
    )
    before = list(sys.meta_path)
    hook = WhenImported("watched", calls.append)
    for _ in range(2):
        with pytest.raises(LookupError, match="not yet"):
            importlib.import_module("watched")
        assert "watched" not in sys.modules
        assert sys.meta_path == [hook, *before]
    assert not calls
    mended.touch()
    module = importlib.import_module("watched")
    assert calls == [module]
    assert type(module.__loader__) is importlib.machinery.SourceFileLoader
    assert sys.meta_path == before


def test_a_reload_does_not_call(folder: Path, calls: list[ModuleType]) -> None:
    (folder / "watched.py").write_text("loads = globals().get('loads', 0) + 1")
    WhenImported("watched", calls.append)
    module = importlib.import_module("watched")
    importlib.reload(module)
    assert module.loads == 2
    assert calls == [module]


def test_a_module_that_is_imported_anew_does_not_call(
    folder: Path, calls: list[ModuleType]
) -> None:
    (folder / "watched.py").touch()
    WhenImported("watched", calls.append)
    importlib.import_module("watched")
    del sys.modules["watched"]
    importlib.import_module("watched")
    assert len(calls) == 1


def test_to_cancel_disturbs_no_import_of_another_thread(
    folder: Path, calls: list[ModuleType]
) -> None:
    """Late finders, as those of packages that are installed editable, are asked nonetheless."""
    (folder / "hidden").mkdir()
    (folder / "hidden" / "other.py").write_text("value = 1")
    found = importlib.util.spec_from_file_location("other", folder / "hidden" / "other.py")
    asked, cancelled = threading.Event(), threading.Event()
    values: list[int] = []

    def wait() -> None:
        asked.set()
        assert cancelled.wait(PATIENCE_S)

    def import_it() -> None:
        try:
            values.append(importlib.import_module("other").value)
        except ModuleNotFoundError:
            values.append(0)

    finders = [Finder(wait), Finder(lambda: found)]
    hook = WhenImported("watched", calls.append)
    sys.meta_path.extend(finders)
    try:
        thread = threading.Thread(target=import_it)
        thread.start()
        assert asked.wait(PATIENCE_S)
        hook.cancel()
        cancelled.set()
        thread.join(PATIENCE_S)
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
    # the next finder.
    assert values == [1]
