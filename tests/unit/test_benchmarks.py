"""Benchmarks are not run with the tests, and must not rot either."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_a_main_function(name):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    assert callable(module.main)
