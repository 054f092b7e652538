"""No program of a shared pool gets code of another version: neither of ours nor of the user's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import compilepool
from tests.proc import is_alive, wait_until
from tests.sharing import Failed, Program, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")

NOTHING = "pool.submit(jobs.sleep, 0).result()"
WHERE = "pool.submit(jobs.where).result()[1]"


@pytest.mark.parametrize("change", ["version", "file"])
def test_another_version_of_this_package_has_another_supervisor(
    tmp_path: Path, change: str
) -> None:
    copy = tmp_path / "copy"
    source = Path(compilepool.__file__).parent
    shutil.copytree(source, copy / "compilepool", ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(copy)])
    os.environ["PYTHONPATH"] = path
    one, same = Program(), Program()
    changed = copy / "compilepool" / ("version.py" if change == "version" else "text.py")
    try:
        parent = one.run(WHERE)
        assert same.run(WHERE) == parent
        text = changed.read_text()
        if change == "version":
            changed.write_text(text.replace('__version__ = "', '__version__ = "9'))
        else:
            changed.write_text(text + "\n# edited\n")
        assert changed.read_text() != text
        other = Program()
        try:
            assert other.run("__import__('compilepool').__file__").startswith(str(copy))
            assert other.run(WHERE) != parent
            assert len(supervisors()) == 2
            assert one.run(WHERE) == parent
        finally:
            other.close()
    finally:
        one.close()
        same.close()


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets is undone."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("is_preloaded", [True, False])
@pytest.mark.parametrize("stays", [True, False], ids=["another program stays", "none stays"])
def test_an_edited_module_is_never_run_as_it_was(
    tmp_path: Path, method: str, is_preloaded: bool, stays: bool
) -> None:
    if method == "spawn" and is_preloaded:
        pytest.skip("spawned workers have nothing preloaded")
    folder = tmp_path / "modules"
    folder.mkdir()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    module = folder / "edited.py"
    module.write_text("def value():\n    return 1\n")
    linger = "" if stays else ", linger=60"
    preload = "preload=['edited']" if is_preloaded else "preload=[]"
    options = (
        f"max_workers=1, shared=True, start_method={method!r}, single_flight=True,"
        f" {preload}{linger}"
    )
    value = "pool.submit(__import__('edited').value).result()"
    first = Program(options)
    try:
        assert first.run(value) == 1
        (old,) = supervisors()
        module.write_text("def value():\n    return 22\n")
        if not stays:
            first.end()
        with programs(2, options) as late:
            for program in late:
                assert program.run(value) == 22
            if stays:
                first.run("futures[0] = pool.submit(jobs.sleep, 0)")
                assert first.run("futures[0].result()") == 0
            for program in late:
                assert program.run(value) == 22
    finally:
        first.close()
        for supervisor in supervisors():  # it lingers
            os.kill(supervisor, 9)
    # The next program removes what the killed one has left.
    with programs(1) as (program,):
        program.run(NOTHING)
    assert old


@pytest.mark.parametrize("what", ["preload", "initializer"])
@pytest.mark.parametrize("stays", [True, False], ids=["another program stays", "none stays"])
def test_who_comes_when_a_failed_start_is_mended_has_workers(
    tmp_path: Path, what: str, stays: bool
) -> None:
    cause = tmp_path / ("mended.py" if what == "preload" else "mended")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    options = "max_workers=1, shared=True, linger=60, "
    if what == "preload":
        cause.write_text("raise RuntimeError('not yet')\n")
        options += "preload=['mended']"
    else:
        options += f"initializer=jobs.lines, initargs=({str(cause)!r},)"
    first = Program(options)
    try:
        with pytest.raises(Failed):
            first.run(NOTHING)
        (broken,) = supervisors()
        cause.write_text("")
        if not stays:
            first.end()
        with programs(2, options) as late:
            assert [program.run(NOTHING) for program in late] == [0, 0]
            if stays:
                with pytest.raises(Failed):
                    first.run(NOTHING)
            else:
                assert wait_until(lambda: not is_alive(broken))
    finally:
        first.close()
        for supervisor in supervisors():  # it lingers
            os.kill(supervisor, 9)
    with programs(1) as (program,):
        program.run(NOTHING)
