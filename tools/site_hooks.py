"""What the documentation site has beyond docs/: the README and the like, and files they link to.

MkDocs calls these functions (https://www.mkdocs.org/user-guide/configuration/#hooks). Pages keep
the links that work in the repository. The site gets a page for each file outside of docs/ that a
page links to.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
LANGUAGES = {".py": "python", ".ipynb": "json", ".service": "ini", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    wanted = sorted({path for file in files.documentation_pages() for path in _linked(file)})
    while wanted:
        path = wanted.pop()
        if files.get_file_from_path(_uri_of(path)) is None and _is_outside(path):
            files.append(File.generated(config, _uri_of(path), content=_page_of(path)))
            wanted += [str(each.relative_to(ROOT)) for each in _files_in(ROOT / path)]
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make the links of a page lead to where the site has the files."""
    uri = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups(default="")
        if "://" in target or uri.startswith("source/"):
            return match[0]
        found = _uri_of(
            posixpath.normpath(posixpath.join(posixpath.dirname(_place_of(uri)), target))
        )
        return f"{before}{posixpath.relpath(found, posixpath.dirname(uri) or '.')}{anchor}{after}"

    return LINK.sub(moved, markdown)


def _linked(file: File) -> list[str]:
    """The files of the repository that a page links to."""
    folder = posixpath.dirname(_place_of(file.src_uri))
    targets = [target for _, target, _, _ in LINK.findall(file.content_string)]
    return [
        posixpath.normpath(posixpath.join(folder, each)) for each in targets if "://" not in each
    ]


def _is_outside(path: str) -> bool:
    return not path.startswith("docs/") and (ROOT / path).exists()


def _place_of(uri: str) -> str:
    """Where in the repository a page of the site comes from."""
    return next((source for source, page in PAGES.items() if page == uri), f"docs/{uri}")


def _uri_of(path: str) -> str:
    """The page, or the file, that the site has for a path in the repository."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def _files_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(each for each in path.rglob("*") if each.is_file() and each.suffix in LANGUAGES)


def _page_of(path: str) -> str:
    """A page that shows a file, or lists those of a folder."""
    place = ROOT / path
    head = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n"
    if place.is_dir():
        names = [each.relative_to(place).as_posix() for each in _files_in(place)]
        return head + "\n".join(f"- [{name}]({place.name}/{name}.md)" for name in names)
    return f"{head}``````{LANGUAGES.get(place.suffix, 'text')}\n{place.read_text()}\n``````\n"
