"""Modules depend on each other in one direction, and reach no private name of another folder."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp

import compilepool

PACKAGE = Path(compilepool.__file__).parent

NAMED_TUPLE = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
"""Public, in spite of their underscore: they cannot clash with a field."""


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """The sets of modules that import each other, by Tarjan's algorithm."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    earliest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> None:
        order[module] = earliest[module] = len(order)
        path.append(module)
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other not in order:
                visit(other)
                earliest[module] = min(earliest[module], earliest[other])
            elif other in path:
                earliest[module] = min(earliest[module], order[other])
        if earliest[module] == order[module]:
            at = path.index(module)
            circle, path[at:] = path[at:], []
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_each_other() -> None:
    graph = grimp.build_graph("compilepool", exclude_type_checking_imports=False, cache_dir=None)
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")):
        for module in (importer, imported):
            graph.add_module(module)
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [["b", "c"]]


def test_every_folder_and_every_module_beside_them_has_a_list_of_what_it_may_import() -> None:

    packages = {path.parent for path in PACKAGE.rglob("__init__.py")} - {PACKAGE}
    modules = {path.with_suffix("") for path in PACKAGE.glob("*.py")} - {PACKAGE / "__init__"}
    names = {
        ".".join(path.relative_to(PACKAGE.parent).parts)
        for path in packages | modules
        if path != PACKAGE / "integrations"  # has nothing but folders
    }
    settings = tomllib.loads((PACKAGE.parent.parent / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    assert {contract["folder"] for contract in contracts} == names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE


def defined_in(tree: ast.AST) -> Iterator[str]:
    """The private names that a module defines, of whatever: functions, classes, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def reached_by(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The private names that a module takes from other objects than `self` and from modules."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name):
                yield node.lineno, name
            case ast.ImportFrom(module=module, names=names) if module is not None:
                if module.partition(".")[0] == "compilepool":
                    yield from ((node.lineno, each.name) for each in names if is_private(each.name))


def reaches_across(trees: dict[Path, ast.AST]) -> list[str]:
    """Where a module reaches a private name that only other folders of ours define."""
    homes: dict[str, set[Path]] = defaultdict(set)
    for path, tree in trees.items():
        for name in filter(is_private, defined_in(tree)):
            homes[name].add(path.parent)
    return [
        f"{path}:{line} {name}"
        for path, tree in trees.items()
        for line, name in reached_by(tree)
        if homes[name] and path.parent not in homes[name]
    ]


def test_private_names_stay_in_their_folder() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    trees: dict[Path, ast.AST] = {
        path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in paths
    }
    assert Path("client/session/session.py") in trees
    assert reaches_across(trees) == []


def test_a_reach_across_would_be_found() -> None:
    home = "class Pool:\n    def __init__(self):\n        self._session = 1\n\ndef _build(): ..."
    guest = (
        "from compilepool.client.pool import _build\nself._pool._session.end()\nthreading._exit()"
    )
    trees: dict[Path, ast.AST] = {
        Path("client/pool.py"): ast.parse(home),
        Path("client/other.py"): ast.parse(guest),
        Path("torch/guest.py"): ast.parse(guest),
    }
    found = ["torch/guest.py:1 _build", "torch/guest.py:2 _session"]
    assert sorted(reaches_across(trees)) == found
