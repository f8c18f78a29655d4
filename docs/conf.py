"""The site of these documents: ``sphinx-build -W --keep-going docs site``, or ``ci/docs``."""

import re

from sphinx.application import Sphinx

project = "lago-images"
html_title = project
extensions = ["myst_parser"]
root_doc = "index"
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
# Anchors as GitHub makes them, of every heading: a link to one that is missing is an error.
myst_heading_anchors = 6
myst_enable_extensions = ["colon_fence"]
nitpicky = True
# TOML's and shell's examples have … for what the reader fills in.
suppress_warnings = ["misc.highlighting_failure"]

_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
_PAGE = re.compile(r"\]\(([^):#]+)\.md\)")


def _with_contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Make the site's contents of the links in lists of pages, which are plain on GitHub."""
    parts = {
        root_doc: _SECTION.findall(source[0]),
        "decisions/README": [("Decisions", source[0])],
    }
    for title, text in parts.get(docname, []):
        pages = "\n".join(dict.fromkeys(_PAGE.findall(text)))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    """Have Sphinx call us for each page that it reads."""
    app.connect("source-read", _with_contents)
