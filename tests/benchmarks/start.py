"""The start of the command line, beside a click program of one command that does nothing.

Pairs alternate; the ratio is of processor seconds, of each pair, and the median and the spread of
the ratios are told. ``--version`` is beside click's own ``version_option``, and completion beside a
bare program that is asked for the same. A plan of one spec is beside ``git status``.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.specs import SpecsRepo

_BARE = """
import click
@click.command()
@click.version_option(package_name="click")
@click.argument("name", required=False)
@click.option("--other")
def bare(name, other): pass
bare(prog_name="bare")
"""
_OURS = (sys.executable, "-m", "lago_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is called, and what it is compared with."""

    name: str
    ours: Sequence[str]
    rival: Sequence[str]
    our_environ: Mapping[str, str] = field(default_factory=dict)
    rival_environ: Mapping[str, str] = field(default_factory=dict)


def completing(words: str, program: str) -> Mapping[str, str]:
    count = str(len(words.split(" ")) - 1)
    return {f"_{program}_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}


def pairs(bare: str) -> list[Pair]:
    rival = (sys.executable, bare)
    help_texts = (("--help",), ("ci", "--help"))
    return [
        *(
            Pair(name=" ".join(args), ours=(*_OURS, *args), rival=(*rival, "--help"))
            for args in help_texts
        ),
        Pair(name="--version", ours=(*_OURS, "--version"), rival=(*rival, "--version")),
        *(
            Pair(
                name=f"complete {words!r}",
                ours=_OURS,
                rival=rival,
                our_environ=completing(f"lago-images {words}", "LAGO_IMAGES"),
                rival_environ=completing("bare --o", "BARE"),
            )
            for words in ("", "ci plan --ou", "build ")
        ),
        Pair(name="ci plan", ours=(*_OURS, "ci", "plan"), rival=("git", "status")),
    ]


def processor(argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=folder, env={**os.environ, **environ}, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        bare = Path(name) / "bare.py"
        bare.write_text(_BARE)
        repo = SpecsRepo.create(Path(name) / "specs")
        repo.disk("disk.img")
        repo.spec("one", "simple:disk.img")
        repo.commit()
        for pair in pairs(str(bare)):
            contest(pair, repo.root, rounds)


def contest(pair: Pair, folder: Path, rounds: int) -> None:
    ours, rival = [], []
    for _ in range(rounds):
        ours.append(processor(pair.ours, pair.our_environ, folder))
        rival.append(processor(pair.rival, pair.rival_environ, folder))
    ratios = sorted(one / other for one, other in zip(ours, rival, strict=True))
    print(
        f"{pair.name:24} {min(ours):6.3f} s CPU, rival {min(rival):6.3f} s; ratio "
        f"{statistics.median(ratios):5.2f} (of {rounds}: {ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
