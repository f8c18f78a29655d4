"""The commands on published pages, as a reader's browser shows them to be copied."""

from html.parser import HTMLParser
from pathlib import Path

# The title of the block that makes a repository one of virt-builder's sources.
SOURCE = "virt-builder, for good"


def blocks(page: Path) -> dict[str, str]:
    """The lines of each block of commands, by its title."""
    parser = _Blocks()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.found


class _Blocks(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._tag = self._heading = self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h3", "h4", "pre"):
            self._tag, self._text = tag, ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag != self._tag:
            return
        if tag == "pre":
            self.found[self._heading] = self._text
        self._heading, self._tag = self._text, ""
