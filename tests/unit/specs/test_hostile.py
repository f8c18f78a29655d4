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


def test_every_hostile_spec_has_an_expected_refusal():
    specs = {path.name for path in (ROOT / "image-specs").iterdir() if path.is_file()}
    assert specs == set(REFUSALS)


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_each_hostile_spec_is_refused_with_its_problems(name):
    told = sorted(refused().get(name, []), key=lambda p: (p.line or 0, p.what))
    assert [f"{problem.line}: {problem.what}" for problem in told] == REFUSALS[name]


def test_only_the_second_spec_of_a_cycle_has_no_problem():
    assert [name for name, told in REFUSALS.items() if not told] == ["cycle-b"]


def test_every_hostile_spec_describes_its_attack():
    for path in (ROOT / "image-specs").iterdir():
        if path.is_file():
            assert b"\n# Tries: " in path.read_bytes(), path.name


def test_each_problem_is_one_printable_line():
    for problems in refused().values():
        for problem in problems:
            assert isinstance(problem, Problem)
            assert str(problem).isprintable()
            assert len(str(problem)) < 400
