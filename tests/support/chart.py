"""A bar chart as SVG, of figures that are kept beside it as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import escape

# Of Okabe and Ito: to be told apart with any colour vision, and on paper.
_COLOURS = ("#0072b2", "#e69f00", "#999999", "#009e73", "#cc79a7", "#56b4e9")
_WIDTH, _LEFT, _RIGHT = 760, 130, 60
_BAR, _ROW, _TOP, _LINE = 28, 44, 40, 22


def draw(figures: Path, target: Path) -> None:
    """Draw the bars of a JSON file, each made of parts that follow one another."""
    chart = json.loads(figures.read_text("utf-8"))
    target.write_text("\n".join(_svg(chart)) + "\n", encoding="utf-8")


def _svg(chart: dict[str, Any]) -> Iterator[str]:
    bars = chart["bars"]
    # One colour a label, in the order of the fullest bar.
    fullest = max(bars, key=lambda bar: len(bar["parts"]))
    colours = dict(zip((part["label"] for part in fullest["parts"]), _COLOURS, strict=False))
    longest = max(_length(bar) for bar in bars)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    height = _TOP + _ROW * len(bars) + _LINE * len(colours) + 8
    title = escape(chart["title"])
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{title}" font-family="sans-serif" font-size="13">'
    )
    yield f"<title>{title}</title>"
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    yield f'<text x="8" y="22" font-weight="bold">{title}</text>'
    for row, bar in enumerate(bars):
        yield from _bar(bar, _TOP + row * _ROW, scale, colours)
    for row, (label, colour) in enumerate(colours.items()):
        y = _TOP + len(bars) * _ROW + row * _LINE
        yield f'<rect x="{_LEFT}" y="{y}" width="14" height="14" fill="{colour}"/>'
        yield f'<text x="{_LEFT + 22}" y="{y + 12}">{escape(label)}</text>'
    yield "</svg>"


def _bar(bar: dict[str, Any], y: int, scale: float, colours: dict[str, str]) -> Iterator[str]:
    middle, x = y + _BAR / 2 + 5, float(_LEFT)
    yield f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(bar["label"])}</text>'
    for part in bar["parts"]:
        width = part["seconds"] * scale
        name = escape(f"{part['label']}: {part['seconds']} s")
        yield (
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{colours[part["label"]]}"><title>{name}</title></rect>'
        )
        x += width
    yield f'<text x="{x + 6:.1f}" y="{middle}">{_length(bar)} s</text>'


def _length(bar: dict[str, Any]) -> int:
    return sum(part["seconds"] for part in bar["parts"])
