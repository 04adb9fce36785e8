"""How Sphinx makes the site: ``sphinx-build -W --keep-going -b html docs docs/_build``.

The API reference is made from the docstrings, so cenote must be installed. The frameworks need not be there.
"""

from __future__ import annotations

import cenote

project = "cenote"
author = "the cenote authors"
copyright = "the cenote authors"
version = release = cenote.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
pygments_style = "friendly"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_mock_imports = ["torch", "cupy", "cupy_backends", "numba"]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
napoleon_google_docstring = False
default_role = "py:obj"  # a name in single backticks becomes a link where it is documented, code where not

html_theme = "pydata_sphinx_theme"
html_title = "cenote"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_show_sourcelink = False
