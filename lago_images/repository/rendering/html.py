"""HTML pages: one environment that escapes everything, and a policy that lets in nothing else.

Whatever specs, builders and guests wrote is text: each value is escaped, and characters that a
page or a feed may not hold are replaced. Style and script are our own files, written into each page
and allowed by their hashes; nothing comes from elsewhere.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lago_images.console import counted, human_size
from lago_images.repository.rendering import views

# Neither HTML nor XML 1.0 may hold them.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def render(template: str, *, script: str = "", policy: str = "", **values: object) -> bytes:
    """Render a page of a template, with the script of that name and all of its values escaped.

    ``policy`` is what the page's script and frames may reach, as Content-Security-Policy has it.
    """
    style = source("style.css")
    code = source("copy.js") + source(script) if script else ""
    allowed = [
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        *([f"script-src '{_hash(code)}'"] if code else []),
        *([policy] if policy else []),
        # default-src stands for neither of these two in a browser: they allow everything if unsaid.
        "base-uri 'none'",
        "form-action 'none'",
    ]
    page = _environment().get_template(template)
    text = page.render(
        style=Markup(style),  # noqa: S704 -- our own file; its hash is in the page's policy
        script=Markup(code),  # noqa: S704 -- the same
        policy="; ".join(allowed),
        **values,
    )
    return text.encode() + b"\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        # jinja2 by itself escapes nothing, and makes an empty text of a misspelt name.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(source),
        finalize=_clean,
    )
    environment.filters |= {
        "size": human_size,
        "moment": views.moment,
        "day": views.day,
        "counted": counted,
        "commit_url": views.commit_url,
        "run_url": views.run_url,
    }
    return environment


def _clean(value: object) -> object:
    """Replace what no page may hold, in text that is not our own."""
    # Not isinstance: Markup, which our own files are, is a str, too.
    return _NO_TEXT.sub("\ufffd", value) if type(value) is str else value


@cache
def source(name: str) -> str:
    """Return a template, style or script of this package."""
    folder = files("lago_images.repository.rendering") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"
