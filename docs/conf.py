"""Sphinx configuration: Markdown pages, and the reference from docstrings."""

from __future__ import annotations

from d4k import __version__

project = "d4k"
author = "the d4k contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "tutorial/d4k-sana"]
html_theme = "furo"
html_title = f"d4k {release}"

# docstrings put code into single backticks, as Markdown does
default_role = "literal"
smartquotes = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# attrs writes defaults as `attr_dict['x'].default` into the source that would be preserved
autodoc_preserve_defaults = False
