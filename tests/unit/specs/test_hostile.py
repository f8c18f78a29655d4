"""Hostile specs: each is refused, with exactly the words of ``refusals.toml``."""

import tomllib
from pathlib import Path

import pytest

from lago_images.errors import Problem
from lago_images.specs.read import inspect

ROOT = Path(__file__).parents[2] / "hostile-specs"
REFUSALS = tomllib.loads((ROOT / "refusals.toml").read_text())


def refused():
    told = {}
    for problem in inspect(ROOT, "image-specs").problems:
        told.setdefault(Path(problem.path).name, []).append(problem)
    return told


def test_every_hostile_spec_has_its_refusal():
    specs = {path.name for path in (ROOT / "image-specs").iterdir() if path.is_file()}
    assert specs == set(REFUSALS)


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refusals(name):
    told = sorted(refused().get(name, []), key=lambda p: (p.line or 0, p.what))
    assert [f"{problem.line}: {problem.what}" for problem in told] == REFUSALS[name]


def test_only_the_rest_of_a_cycle_goes_unmentioned():
    assert [name for name, told in REFUSALS.items() if not told] == ["cycle-b"]


def test_every_spec_says_what_it_tries():
    for path in (ROOT / "image-specs").iterdir():
        if path.is_file():
            assert b"\n# Tries: " in path.read_bytes(), path.name


def test_problems_are_one_printable_line():
    for problems in refused().values():
        for problem in problems:
            assert isinstance(problem, Problem)
            assert str(problem).isprintable()
            assert len(str(problem)) < 400
