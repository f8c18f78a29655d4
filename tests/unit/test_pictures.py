"""Pictures that are drawn of figures are of the figures beside them."""

from pathlib import Path

from tests.support import chart

PICTURES = Path(__file__).parents[2] / "docs/pictures"


def test_the_chart_of_a_builds_time_is_of_the_figures_beside_it(tmp_path):
    chart.draw(PICTURES / "build-times.json", tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_text("utf-8")
    assert drawn == (PICTURES / "build-times.svg").read_text("utf-8")
