"""The links of the pages: each leads to a file of this tree, and to a heading of it where it names one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("mdit_py_plugins")
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "docs").rglob("[!_]*.md")),
]
ELSEWHERE = ("http://", "https://", "mailto:")  # other sites' pages are looked at by people


@cache
def tokens(page: Path) -> list[Token]:
    """What a page consists of, in order, with the anchors of its headings as GitHub and the site make them."""
    parsed = MarkdownIt("gfm-like", {"linkify": False}).use(anchors_plugin, max_level=4).parse(page.read_text())
    return [token for block in parsed for token in (block, *(block.children or ()))]


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, and of the page that it includes."""
    found = {str(token.attrs["id"]) for token in tokens(page) if token.type == "heading_open" and "id" in token.attrs}
    included = [token.info.split()[1] for token in tokens(page) if token.info.startswith("{include} ")]
    return found.union(*(anchors(page.parent / path) for path in included))


def links(page: Path) -> Iterator[str]:
    for token in tokens(page):
        target = token.attrs.get("href" if token.type == "link_open" else "src")
        if token.type in ("link_open", "image") and target is not None:
            yield unquote(str(target))


def broken(page: Path) -> list[str]:
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if link.startswith(ELSEWHERE):
            continue
        if not target.exists():
            found.append(f"{link}: there is no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            found.append(f"{link}: that page has no such heading")
    return found


def test_the_pages_were_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/concepts.md"} <= {str(page.relative_to(ROOT)) for page in PAGES}
    assert sum(len(list(links(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One heading\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one-heading) [b](other.md#two) [c](none.md) ![d](e.png)\n\n[e]\n\n[e]: none.md#x\n")
    assert [link.partition(":")[0] for link in broken(page)] == ["other.md#two", "none.md", "e.png", "none.md#x"]
