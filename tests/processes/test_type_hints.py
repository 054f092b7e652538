"""`typing.get_type_hints` gives the real types of everything public, and costs the start nothing.

Modules of compilepool import neither `typing` nor what only annotations name. Therefore
`get_type_hints` once raised NameError for most of `CompilePool`, and gave `object` for `Any` and
`str` for a TypeVar.
"""

from __future__ import annotations

import ast
import compileall
import dataclasses
import functools
import importlib
import inspect
import pickle
import pydoc
import shutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, NoneType, TracebackType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from rich.progress import Progress

import compilepool
from compilepool import CompileFuture, CompilePool, JobDump, PoolStats
from compilepool.client.configured_pool import ConfiguredPool
from compilepool.client.options import PoolOptions
from compilepool.integrations.torch import current_pool, install, uninstall
from compilepool.integrations.torch.compile_worker.timer import Timer
from compilepool.observe.counters import Quantiles
from compilepool.observe.record import Phase
from compilepool.observe.stats import Memory, Restarts
from compilepool.wire.failure import ProcessMemory
from compilepool.wire.native_report import ChildProcess
from compilepool.wire.serializers import Serializer
from tests.proc import PATIENCE_S
from tests.processes.test_footprint import NEW_POOL, modules_after

NAMED_TUPLES = (ChildProcess, Memory, Phase, ProcessMemory, Quantiles, Restarts)
DATACLASSES = (JobDump, PoolStats)
PUBLIC = (
    *(getattr(compilepool, name) for name in compilepool.__all__),
    *(ConfiguredPool, Serializer, Timer, current_pool, install, uninstall, *NAMED_TUPLES),
)
ALIASES = {"OnCrash": "Literal", "WorkerMode": "Literal"}


def functions_of(public: object) -> Iterator[FunctionType]:
    """Something public itself, if it is a function, or its public methods and properties."""
    for cls in public.__mro__ if isinstance(public, type) else ():
        for name, member in vars(cls).items():
            function = getattr(member, "fget", member)
            if name == "__init__" or not name.startswith("_"):
                yield from functions_of(function)
    if isinstance(public, FunctionType) and public.__module__.startswith("compilepool"):
        yield public


FUNCTIONS = {
    f"{function.__module__}.{function.__qualname__}": function
    for public in PUBLIC
    for function in functions_of(public)
    if public not in DATACLASSES or function.__name__ != "__init__"  # it has no source
}


def annotations_in_source(function: FunctionType) -> dict[str, ast.expr]:
    """The annotation of each parameter, and of the result as "return", parsed from the source."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    arguments = [node for node in ast.walk(tree.args) if isinstance(node, ast.arg)]
    found = {node.arg: node.annotation for node in arguments if node.annotation}
    return found | ({"return": tree.returns} if tree.returns else {})


def names_in_source(annotation: ast.AST) -> set[str]:
    """The names of types in an annotation: dict, str and PathLike in `dict[str, os.PathLike]`."""
    match annotation:
        case ast.Attribute(value=ast.Name("os"), attr=name) | ast.Name(name):
            return {ALIASES.get(name, name)}
        case ast.Constant(None):
            return {"None"}
    return set[str]().union(*map(names_in_source, ast.iter_child_nodes(annotation)))


def names_in_hint(hint: Any) -> set[str]:
    """The names of the types that a hint is made of."""
    if hint in (None, NoneType):
        return {"None"}
    if get_origin(hint) is Literal:
        return {"Literal"}
    if isinstance(hint, typing.ParamSpecArgs | typing.ParamSpecKwargs):
        return names_in_hint(hint.__origin__)
    parts = hint if isinstance(hint, list) else get_args(hint)  # a list: what a Callable takes
    names = set[str]().union(*map(names_in_hint, parts))
    kind = get_origin(hint) or hint
    if isinstance(hint, list) or kind in (..., UnionType, typing.Union):
        return names
    return names | {kind.__name__}


def test_the_functions_are_all_there() -> None:
    names = {name.removeprefix("compilepool.") for name in FUNCTIONS}
    assert {
        "client.pool.CompilePool.__init__",
        "client.executor.JobExecutor.submit",
        "client.pool.CompilePool.ready",
        "client.configured_pool.ConfiguredPool.shutdown",
        "client.as_completed.as_completed",
        "any_process.phases.report_phase",
        "integrations.torch.compile_worker.timer.Timer.record_call",
        "observe.stats.Memory.total",
        "errors.crashed.WorkerCrashed.__init__",
        "integrations.torch.install",
    } <= names


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_hint_is_of_the_types_that_the_source_names(name: str) -> None:
    function = FUNCTIONS[name]
    hints = get_type_hints(function)
    source = annotations_in_source(function)
    assert hints.keys() == source.keys()
    for parameter, annotation in source.items():
        # Equal: so no placeholder is left, neither `object` for `Any` nor `str` for a TypeVar.
        assert names_in_hint(hints[parameter]) == names_in_source(annotation), parameter


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_who_reads_annotations_otherwise_gets_the_same(name: str) -> None:
    function = FUNCTIONS[name]
    hints = get_type_hints(function)
    annotations = inspect.get_annotations(function, eval_str=True)
    assert {key: hint or NoneType for key, hint in annotations.items()} == hints
    signature = inspect.signature(function, eval_str=True)
    told = {name: each.annotation for name, each in signature.parameters.items()}
    assert {name: hint for name, hint in told.items() if hint is not signature.empty} == {
        name: hint for name, hint in hints.items() if name != "return"
    }


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__qualname__)
def test_everything_public_has_hints_without_an_error(public: Any) -> None:
    assert all(names_in_hint(hint) for hint in get_type_hints(public).values())


@pytest.mark.parametrize("named_tuple", NAMED_TUPLES)
def test_hints_of_a_named_tuple_are_its_fields(named_tuple: Any) -> None:
    hints = get_type_hints(named_tuple)
    assert tuple(hints) == named_tuple._fields
    signature = inspect.signature(named_tuple)
    assert {name: each.annotation for name, each in signature.parameters.items()} == hints


@pytest.mark.parametrize("dataclass", DATACLASSES)
def test_hints_of_a_dataclass_are_its_fields(dataclass: Any) -> None:
    hints = get_type_hints(dataclass)
    assert list(hints) == [field.name for field in dataclasses.fields(dataclass)]
    assert get_type_hints(dataclass.__init__) == hints | {"return": NoneType}


def test_types_are_the_real_ones() -> None:
    submit = get_type_hints(CompilePool.submit)
    [fn_takes, result] = get_args(submit["fn"])
    assert isinstance(result, typing.TypeVar)
    assert isinstance(fn_takes, typing.ParamSpec)
    assert submit == {
        "fn": Callable[fn_takes, result],
        "args": fn_takes.args,
        "kwargs": fn_takes.kwargs,
        "return": CompileFuture[result],  # type: ignore[valid-type]
    }
    assert get_type_hints(ConfiguredPool.submit) == submit
    init = get_type_hints(CompilePool.__init__)
    assert init["start_method"] == Literal["fork", "spawn"]
    assert init["progress"] == bool | Progress
    assert init["serializer"] == Serializer | None
    assert get_type_hints(CompilePool.stats) == {"return": PoolStats}
    assert get_type_hints(CompilePool.dump) == {
        "future": CompileFuture[Any],
        "timeout": float,
        "return": JobDump,
    }
    leave = get_type_hints(CompilePool.__exit__)
    assert leave["exc_tb"] == TracebackType | None
    assert leave["return"] == Literal[False]
    assert get_type_hints(Serializer.loads) == {"data": bytes, "return": Any}
    assert get_type_hints(install)["on_crash"] == Literal["raise", "in_process"]
    assert get_type_hints(current_pool) == {"return": CompilePool | None}
    assert get_type_hints(compilepool.JobTimeout.__init__)["children"] == tuple[Any, ...]
    assert get_type_hints(Phase) == {"name": str, "started": float, "seconds": float}
    assert get_type_hints(ProcessMemory) == {"pid": int, "name": str, "bytes": int}
    options = get_type_hints(PoolOptions)  # a NamedTuple whose module lacks `Any` and `Progress`
    assert options["initargs"] == Sequence[Any]
    assert options["progress"] == bool | Progress


@pytest.mark.parametrize("function", [CompilePool.submit, compilepool.as_completed])
def test_a_wrapper_has_the_hints_and_travels(function: Callable[..., object]) -> None:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return args

    assert get_type_hints(wrapper) == get_type_hints(function)
    with CompilePool(1) as pool:  # by cloudpickle: pickle cannot send what a function has inside
        assert pool.submit(wrapper, 1).result(PATIENCE_S) == (1,)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations have formats since Python 3.14")
def test_each_format_of_annotations_can_be_had() -> None:
    annotationlib = importlib.import_module("annotationlib")
    formats = annotationlib.Format
    for public in (CompilePool.stats, functools.wraps(CompilePool.stats)(lambda: None)):
        get = functools.partial(annotationlib.get_annotations, public)
        assert get(format=formats.STRING) == {"return": "PoolStats"}
        assert get(format=formats.VALUE) == get(format=formats.FORWARDREF) == {"return": PoolStats}
    assert annotationlib.get_annotations(Phase, format=formats.STRING)["name"] == "str"


def test_annotations_pickle_as_text_and_help_tells_them() -> None:
    annotations = CompilePool.stats.__annotations__
    assert annotations == {"return": PoolStats}
    assert repr(annotations) == repr({"return": PoolStats})
    assert annotations.get("return") is PoolStats
    assert [*annotations.values()] == [*annotations.copy().values()] == [PoolStats]
    pickled = pickle.loads(pickle.dumps(annotations))
    assert type(pickled) is dict
    assert pickled == {"return": "PoolStats"}
    assert pickle.loads(pickle.dumps(Phase("parse", 1.0, 2.0))) == Phase("parse", 1.0, 2.0)
    assert "start_method" in pydoc.render_doc(CompilePool)
    assert {field.type for field in dataclasses.fields(JobDump)} == {
        *("str", "float", "tuple[str, ...]", "tuple[ChildProcess, ...]")
    }


def test_nothing_is_imported_for_hints_before_somebody_asks_for_them() -> None:
    start = (*NEW_POOL, "assert pool.submit(abs, -1).result() == 1")
    ask = "import typing; assert typing.get_type_hints(CompilePool.__init__)"
    before, after = modules_after(*start), modules_after(*start, ask)
    assert "compilepool.light_typing" in before
    assert {"typing", "rich", "compilepool.type_hints"} <= after - before


def run(code: str) -> str:
    """What a Python process prints that runs `code`."""
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_the_first_thing_that_a_program_does_can_be_to_ask() -> None:
    code = "import typing, compilepool as c; print(typing.get_type_hints(c.{}))"
    assert "Iterator[concurrent.futures._base.Future[~T]]" in run(code.format("as_completed"))
    assert "CompileFuture[~T]" in run(code.format("CompilePool.submit"))


def test_what_cannot_be_imported_stays_text() -> None:
    code = """if True:
        import inspect, sys
        sys.modules["rich"] = None
        from compilepool import CompilePool
        parameters = inspect.signature(CompilePool).parameters
        print(repr(parameters["progress"].annotation), parameters["max_workers"].annotation)
    """
    assert run(code) == "'bool | Progress' int | None"


def test_without_the_source_all_stays_text(tmp_path: Path) -> None:
    package = tmp_path / "compilepool"
    shutil.copytree(Path(compilepool.__file__).parent, package)
    compileall.compile_dir(package, quiet=2, legacy=True)
    for source in package.rglob("*.py"):
        source.unlink()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "import compilepool, inspect; print(compilepool.__file__)\n"
    code += "print(inspect.signature(compilepool.CompilePool.stats))"
    assert run(code) == f"{package}/__init__.pyc\n(self) -> 'PoolStats'"
