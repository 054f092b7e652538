"""What the documents say of the code is true: files, functions and links that they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import compilepool
from tools.executor_tests.page import PAGE, read_counts, render

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src/compilepool"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
PLACES = (ROOT, ROOT / "src", SOURCE, SOURCE / "supervisor", ROOT / "tests", ROOT / "docs")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def functions_of(file: Path) -> set[str]:
    """The functions of a module, and the methods of its classes as Class.method."""
    functions = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            functions |= {f"{node.name}.{method}" for method in methods}
    return functions


def public_names(path: str) -> list[str]:
    """The `__all__` of a module, which is not imported."""
    for node in ast.parse((SOURCE / path).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{path} has no __all__")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def walks() -> list[list[tuple[str, str]]]:
    """The legs of the walks through the code: tables of files and functions."""
    page = (ROOT / "docs/architecture.md").read_text()
    tables = page.split("| file | function | what it does |")[1:]
    row = re.compile(r"^   \| `([\w/]+\.py)` \| `([\w.]+)` \|", re.MULTILINE)
    return [row.findall(table.partition("\n\n")[0]) for table in tables]


def test_each_hop_of_a_walk_is_a_function_and_no_leg_goes_back_and_forth() -> None:
    legs = walks()
    assert legs
    assert all(len(leg) > 1 for leg in legs)
    hops = [hop for leg in legs for hop in leg]
    assert [hop for hop in hops if hop[1] not in functions_of(SOURCE / hop[0])] == []
    assert [leg for leg in legs if len({file for file, _ in leg}) < len(leg)] == []


@each_page
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors_of(other), target


@each_page
def test_each_file_that_is_named_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names files that have gone
    for name in re.findall(r"`([\w/]+/[\w/]+\.(?:py|md|json|toml))`", page.read_text()):
        assert any((place / name).exists() for place in PLACES), name


def test_the_page_of_other_executors_tests_says_what_is_listed() -> None:
    text = PAGE.read_text()
    assert render(read_counts(text)) == text


def test_the_reference_has_every_public_name() -> None:
    pages = "\n".join(page.read_text() for page in sorted(ROOT.glob("docs/reference/*.md")))
    named = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)}
    integrations = ("torch", "numba", "helion")
    public = (public_names(f"integrations/{name}/__init__.py") for name in integrations)
    assert named >= {*compilepool.__all__}.union(*public)


@each_page
def test_each_python_example_is_python(page: Path) -> None:
    for code in re.findall(
        r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        ast.parse(code)
