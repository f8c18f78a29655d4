"""``python -m tests.benchmarks [NAME [ARGUMENT…]]``: run a benchmark, or list them."""

import importlib
import pkgutil
import sys

import tests.benchmarks


def names() -> list[str]:
    """The modules here with a ``main``."""
    modules = sorted(module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__))
    return [name for name in modules if not name.startswith("_")]


def run(arguments: list[str]) -> int:
    """Run the benchmark that is named first, with the rest as its arguments."""
    if not arguments or arguments[0] not in names():
        print("usage: python -m tests.benchmarks NAME; NAME is one of:", *names(), sep="\n  ")
        return 0 if not arguments else 2
    module = importlib.import_module(f"tests.benchmarks.{arguments[0]}")
    sys.argv = [f"tests.benchmarks.{arguments[0]}", *arguments[1:]]
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
