"""The documents as a site, the pages that are made of code, and the links of the package page."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import reference
from tests.tools import cannot

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "https://github.com/lago-project/lago-images/"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PLACE = re.compile(rf"{re.escape(PROJECT)}(?:blob|tree|raw)/main/([^#]+)(?:#(.+))?")


def need_sphinx() -> None:
    missing = [name for name in ("sphinx", "myst_parser", "furo") if find_spec(name) is None]
    if missing:
        cannot(f"not installed: {', '.join(missing)} (ci/setup-python dev)")


def test_the_site_is_made_without_a_warning(tmp_path):
    """Of a link, an anchor or a page in no list there would be one."""
    need_sphinx()
    argv = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    made = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    front = (tmp_path / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in front or page.stem == "index"


@pytest.mark.parametrize(
    "text",
    ["[page](missing.md)\n", "[anchor](signing.md#missing)\n", "[file](schemas/missing.json)\n"],
)
def test_what_leads_nowhere_fails_the_site(tmp_path, text):
    need_sphinx()
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text((ROOT / "docs/conf.py").read_text())
    (docs / "signing.md").write_text("# Signing\n")
    (docs / "index.md").write_text(
        f"# Index\n\n## All\n\n- [Signing](signing.md#signing)\n\n{text}"
    )
    argv = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(docs), str(tmp_path)]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert made.returncode == 1
    assert "missing" in made.stderr


@pytest.mark.parametrize("name", reference.pages())
def test_pages_of_the_reference_are_those_of_the_code(name):
    kept = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert kept == reference.pages()[name], "python -m tests.support.reference"
    assert {path.name for path in reference.FOLDER.iterdir()} == set(reference.pages())


@pytest.mark.parametrize(
    "name",
    ["README.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("**/*.md"))],
)
def test_links_to_this_project_lead_to_what_is_there(name):
    page = ROOT / name
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        # A package's page on PyPI has no files beside it.
        assert name != "README.md" or target.startswith(("https://", "#")), target
        if place := _PLACE.fullmatch(target):
            assert (ROOT / place[1]).exists(), target
            assert not place[2] or place[2] in anchors(ROOT / place[1]), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
