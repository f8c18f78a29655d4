"""Text of strangers in Markdown that GitHub renders: shown as it is, and without effect."""

import html
import re

from lago_images.console import clean

_WIDE = 240
# A reference works as text and never as structure (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references);
# what is left is looked for by GitHub after rendering: mentions, which a zero-width space ends.
_ACTIVE = re.compile(r"[^\w \u0080-\U0010ffff-]|_")


def inert(text: str, *, limit: int = _WIDE) -> str:
    """One line of text that cannot leave its place, link, mention or format.

    ``limit`` is in characters.
    """
    line = clean(" ".join(text.split()))
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    return _ACTIVE.sub(_reference, line)


def code(text: str, *, limit: int = _WIDE) -> str:
    """``inert`` text in a code span, where GitHub looks for no mention or issue."""
    return f"<code>{inert(text, limit=limit)}</code>"


def block(lines: tuple[str, ...]) -> str:
    """Lines as they were printed, in a block that nothing in them can end."""
    shown = "\n".join(html.escape(clean(line)[:1000]) for line in lines)
    return f"<pre>\n{shown}\n</pre>"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A table of cells that are Markdown already: ``inert`` or our own."""
    lines = [heads, ("---",) * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    return f"&#{ord(character)};" + ("\u200b" if character == "@" else "")
