"""How Sphinx builds this folder. `make docs` writes the site to build/docs; a warning is an error, and nothing is
fetched."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "adaptune"
author = "the adaptune authors"
copyright = "the adaptune authors, Apache-2.0"
version = release = version_of("adaptune")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/*.yaml"]
nb_execution_mode = "off"  # a notebook shows what its file holds; the tests run it
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# A fence of plain output has no language; one in TOML or YAML has. Highlighting that fails is a warning, so an error.
highlight_language = "none"

# Docstrings are plain text with code between single backticks.
default_role = "code"
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
smartquotes_action = "qe"  # quotation marks and dots; two dashes stand for an option, not for one long dash
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "adaptune"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars: dict[str, list[str]] = {"index": [], "tutorial": [], "glossary": [], "changelog": []}


def commands_in_markdown() -> str:
    """The page of the command line, from its own help, by typer's generator."""
    import typer
    from typer.cli import get_docs_for_click

    from orchestrator.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="adaptune"), name="adaptune")
    # From the first command on: what stands before it is the page's to say.
    return f"## {text.partition('## ')[2]}".replace("```console", "```none")


def methods_in_markdown() -> str:
    """A section for each method there is, from the docstrings of its file and of its options."""
    from trainables.methods import method_names

    sections = []
    for name in method_names():
        module = f"trainables.methods.{name}"
        directives = f".. automodule:: {module}\n\n.. autoclass:: {module}.Options"
        sections.append(f"## {name}\n\n```{{eval-rst}}\n{directives}\n```\n")
    return "\n".join(sections)


def fill_in(app: Any, docname: str, source: list[str]) -> None:
    if docname == "reference/command-line":
        source[0] = source[0].replace("<!-- commands -->", commands_in_markdown())
    if docname == "reference/methods":
        source[0] = source[0].replace("<!-- methods -->", methods_in_markdown())


def setup(app: Any) -> None:
    app.connect("source-read", fill_in)
