"""The README as the package index shows it: pyproject.toml names this as the provider of that field.

On the forge, links lead to other files of the tree. The index has none of these, so here they lead to the forge, to the
tag of this release. A provider of the tree's own, so that a build needs nothing more than it needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!https?:|mailto:|#)(?P<path>[^)]+)\)")


def absolute_links(text: str, source: str, tag: str) -> str:
    """Return a page whose links and pictures lead to the files of a tag at `source`."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({source}/{kind}/{tag}/{link['path']})"

    return LINK.sub(absolute, text)


def from_the_index(text: str) -> str:
    """Return a page whose first command installs from the index, as its reader has no checkout."""
    return text.replace("'.[cli]'", "'cenote[cli]'")


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field, for scikit-build-core."""
    text = from_the_index(Path("README.md").read_text(encoding="utf-8"))
    text = absolute_links(text, project["urls"]["Source"], f"v{project['version']}")
    return {"readme": {"content-type": "text/markdown", "text": text}}
