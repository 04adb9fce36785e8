"""How Sphinx makes the site: ``sphinx-build -W --keep-going -b html docs docs/_build``.

The API reference is made from the docstrings, so cenote must be installed. The frameworks need not be there.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import os
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref

import cenote

sys.path.insert(0, str(Path(__file__).parent))  # cpp_reference, public_headers

project = "cenote"
author = "the cenote authors"
copyright = "the cenote authors"
version = release = cenote.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cpp_reference"]
if importlib.util.find_spec("sphinx_copybutton"):  # without it, blocks of code have no button
    extensions.append("sphinx_copybutton")
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
pygments_style = "friendly"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_mock_imports = ["torch", "cupy", "cupy_backends", "numba", "warp", "cuda", "dask", "distributed"]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
napoleon_google_docstring = False
default_role = "py:obj"  # a name in single backticks becomes a link where it is documented, code where not

html_theme = "pydata_sphinx_theme"
html_title = "cenote"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "github_url": "https://github.com/cenote-gpu/cenote",
    "header_links_before_dropdown": 6,  # all sections
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
if versions := os.environ.get("CENOTE_SITE_VERSIONS"):  # set where the site is published: .github/workflows/site.yml
    html_theme_options |= {
        "switcher": {"json_url": versions, "version_match": os.environ["CENOTE_SITE_VERSION"]},
        "check_switcher": False,
        "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    }
html_show_sourcelink = False


def signatures() -> dict[str, str]:
    """Every signature of the compiled modules, by qualified name, as their stubs have it."""
    found: dict[str, str] = {}

    def add(node: ast.AST, prefix: str) -> None:
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                add(each, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not any("overload" in ast.unparse(d) for d in node.decorator_list):
            if prefix and node.args.args and node.args.args[0].arg in ("self", "cls"):
                node.args.args.pop(0)
            arguments = ast.unparse(node.args).replace("_StreamLike=...", "_StreamLike=DEFAULT_STREAM")
            found[prefix + node.name] = f"({arguments})".replace("_StreamLike", "StreamLike")

    for stub in Path(cenote.__file__).parent.glob("_core/*.pyi"):
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            add(node, "")
    return found


SIGNATURES = signatures()


def is_compiled(obj: Any) -> bool:
    """Whether a class, function or method is of a compiled module, where signatures have no types."""
    if isinstance(obj, type):
        return not obj.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
    return callable(obj) and not isinstance(getattr(obj, "__func__", obj), FunctionType)


def take_signature_of_stub(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Give compiled functions and methods the signature of the stub."""
    if signature is None or not is_compiled(obj):
        return signature, returns
    return SIGNATURES.get(obj.__qualname__, signature), returns


def show_how_to_make(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Say how an object of a compiled class is made: autodoc finds no signature, and cannot be given one."""
    made_by = SIGNATURES.get(f"{obj.__qualname__}.__init__") if what == "class" and is_compiled(obj) else None
    if made_by:
        lines[:0] = [".. code-block:: python", "", f"   {obj.__qualname__}{made_by}", ""]


def leave_out_compiled_bases(app: Any, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """Name no base that is not public: a compiled class may be made of two."""
    bases[:] = [base for base in bases if not base.__module__.startswith("cenote._core.")] or [object]


def leave_types_of_python_alone(app: Any, document: nodes.document) -> None:
    """Take links out of types such as ``bytes``, which would lead to an attribute of that name."""
    for reference in list(document.findall(pending_xref)):
        names_a_type = reference["refdomain"] == "py" and reference["reftype"] == "class"
        if names_a_type and hasattr(builtins, reference["reftarget"]):
            reference.replace_self(reference.children)


def setup(app: Any) -> None:
    """Connect to Sphinx, which calls this."""
    app.connect("autodoc-process-signature", take_signature_of_stub)
    app.connect("autodoc-process-docstring", show_how_to_make)
    app.connect("autodoc-process-bases", leave_out_compiled_bases)
    app.connect("doctree-read", leave_types_of_python_alone)
