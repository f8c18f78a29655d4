"""The build of two real images, a base and a layer with packages, beside the older steps.

    python -m tests.benchmarks build [--rounds N] [--boot] [--appliance] [--skip-older] [--again]

``lago-debian-12`` and ``lago-debian-12-iscsi`` of ``image-specs``, from the packages' bootstrap to
two compressed disks with their checksums, all under TCG. Ours: ``build_chains``. The older, for
each: an overlay, virt-customize, virt-sysprep, virt-sparsify --in-place, qemu-img convert, ``xz
--best --block-size=16777216 -T0``, and four reads for checksums. The bootstrap, which it did not
have, is ours in both; boot tests, which it did not have either, are made with ``--boot`` alone. It
needs a mirror.

``--appliance`` builds with ``engine = "appliance"``, too: what the engine alone gives. Who is first
alternates, since the mirror's answers are cached by whoever is between.

``--again`` builds ours three times and nothing else: with nothing kept, with all that was kept of
that, and with that and one more package in the layer. Each is a repository of its own, so that
nothing is left out because it was built before.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from lago_images.building import image
from lago_images.building.bases.bootstrap import build as bootstrap
from lago_images.building.chain import build_chains
from lago_images.building.customise import engine as engines
from lago_images.building.customise.sysprep import appliance_environment
from lago_images.building.model import Request
from lago_images.console import Console
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.settings import Settings
from lago_images.specs.model import Spec
from lago_images.specs.read import read
from tests.support.images import a_context

ROOT = Path(__file__).parents[2]
CHAIN = ("lago-debian-12", "lago-debian-12-iscsi")
TCG = Acceleration(name="tcg")
# Without dependencies that the layer does not have.
ONE_MORE = ",tree"
SUMS = (
    "sha1sum disk.qcow2",
    "sha256sum disk.qcow2",
    "sha512sum disk.qcow2.xz",
    "md5sum disk.qcow2",
)
XZ = ("xz", "--best", "--block-size=16777216", "-T0", "--keep", "disk.qcow2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds by the clock and of processors."""

    wall: float
    processor: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(wall=self.wall + other.wall, processor=self.processor + other.processor)

    def __str__(self) -> str:
        return f"{self.wall:6.0f} s {self.processor:6.0f} processor s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What the whole cost, what of it each step did, and the bytes of each disk."""

    whole: Cost
    steps: Mapping[str, Cost]
    sizes: tuple[int, ...]


def measured(work: Callable[[], object]) -> Cost:
    wall, before = time.perf_counter(), _processor()
    work()
    return Cost(wall=time.perf_counter() - wall, processor=_processor() - before)


def _processor() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def chain(*, boot: bool) -> list[Spec]:
    """The two specs; without ``boot`` they ask for no boot test."""
    specs = read(ROOT, "image-specs")
    why = {} if boot else {"boot-test": "no: only the build is measured"}
    return [replace(specs[name], properties={**specs[name].properties, **why}) for name in CHAIN]


def ours(engine: str, *, boot: bool, kept: Path | None = None, more: str = "") -> Built:
    """Build the chain with an engine.

    Args:
        engine: As the setting has it.
        boot: Whether to make boot tests.
        kept: The folder of what builds keep; without, nothing is kept from before.
        more: Packages that the layer has besides, each with a comma before it.
    """
    steps: dict[str, Cost] = {}
    sizes: list[int] = []

    def timed(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            done: list[object] = []
            cost = measured(lambda: done.append(function(*args, **named)))
            steps[name] = steps[name] + cost if name in steps else cost
            return done[0]

        return call

    def build(folder: Path) -> None:
        settings = Settings(folder=folder, engine=engine)
        context = a_context(folder, settings=settings)
        context = replace(context, cache=kept or context.cache)
        shutil.copytree(ROOT / "image-specs", context.root / "image-specs")
        requests = [
            Request(spec=spec, fingerprint=f"sha256:{number}", commit="unknown", dirty=False)
            for number, spec in enumerate(with_packages(chain(boot=boot), more))
        ]
        for result in build_chains([requests], context, accel=TCG, jobs=1):
            assert result.manifest is not None, (result.error, result.tail)
            sizes.append(result.manifest.disk.compressed_size)

    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as name,
        mock.patch.object(image, "customise", timed("customise", engines.customise)),
        mock.patch.object(bootstrap, "prepare", timed("bootstrap", bootstrap.prepare)),
    ):
        whole = measured(lambda: build(Path(name)))
    return Built(whole=whole, steps=steps, sizes=tuple(sizes))


def with_packages(specs: list[Spec], more: str) -> list[Spec]:
    """The specs with more packages in every ``install``."""
    return [
        replace(
            spec,
            operations=tuple(
                replace(each, argument=each.argument + more) if each.name == "install" else each
                for each in spec.operations
            ),
        )
        for spec in specs
    ]


def again(*, boot: bool) -> None:
    """Build with nothing kept, with all of it kept, and with one more package."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        kept = Path(name) / "cache"
        tell("cold", ours("auto", boot=boot, kept=kept))
        tell("warm", ours("auto", boot=boot, kept=kept))
        tell("one package more", ours("auto", boot=boot, kept=kept, more=ONE_MORE))


def older() -> Built:
    """Build the chain by the older pipeline's steps."""
    steps: dict[str, Cost] = {}
    sizes: list[int] = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        context, specs = a_context(folder), chain(boot=False)
        runner = Runner(log=folder / "log", environ={**os.environ, "TMPDIR": name})
        bases = [folder / "none"]
        steps["bootstrap"] = measured(
            lambda: bases.append(
                bootstrap.prepare(specs[0], "sha256:0", folder, context, runner).disk
            )
        )
        for spec in specs:
            work = folder / spec.name
            work.mkdir()
            shutil.copytree(ROOT / "image-specs", work / "image-specs")
            for step, cost in _older_steps(bases[-1], spec, work).items():
                steps[step] = steps[step] + cost if step in steps else cost
            bases.append(work / "disk.qcow2")
            sizes.append((work / "disk.qcow2.xz").stat().st_size)
    return Built(
        whole=sum(steps.values(), start=Cost(wall=0, processor=0)), steps=steps, sizes=tuple(sizes)
    )


def _older_steps(base: Path, spec: Spec, folder: Path) -> dict[str, Cost]:
    commands = "".join(f"{each.name} {each.argument}\n" for each in spec.operations)
    (folder / "commands").write_text(commands)
    environ = {**os.environ, **appliance_environment(TCG)}

    def step(*argv: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            argv, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=7200
        )

    backing = ("-F", "qcow2" if base.suffix == ".qcow2" else "raw", "-b", str(base))
    works = {
        "overlay": step("qemu-img", "create", "-q", "-f", "qcow2", *backing, "new.qcow2"),
        "virt-customize": step(
            "virt-customize", "-a", "new.qcow2", "--commands-from-file", "commands"
        ),
        "virt-sysprep": step("virt-sysprep", "-a", "new.qcow2"),
        "virt-sparsify": step("virt-sparsify", "--in-place", "new.qcow2"),
        "qemu-img convert": step("qemu-img", "convert", "-O", "qcow2", "new.qcow2", "disk.qcow2"),
        "xz --best": step(*XZ),
        "four checksums": step("sh", "-ec", "; ".join(SUMS)),
    }
    return {name: measured(work) for name, work in works.items()}


def tell(who: str, built: Built) -> None:
    for step, cost in built.steps.items():
        print(f"    {step:18} {cost}")
    sizes = ", ".join(f"{size / 1e6:.1f} MB" for size in built.sizes)
    print(f"  {who:20} {built.whole}   {sizes}", flush=True)


def ratios(own: Built, rival: Built) -> dict[str, float]:
    """How many times faster our build is; and our bytes beside theirs."""
    bootstrapped = [each.steps["bootstrap"].wall for each in (own, rival)]
    return {
        "faster, whole": rival.whole.wall / own.whole.wall,
        "faster, after the bootstrap": (rival.whole.wall - bootstrapped[1])
        / (own.whole.wall - bootstrapped[0]),
        "less work": rival.whole.processor / own.whole.processor,
        **{
            f"size of {name}": mine / theirs
            for name, mine, theirs in zip(CHAIN, own.sizes, rival.sizes, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--boot", action="store_true")
    parser.add_argument("--appliance", action="store_true")
    parser.add_argument("--skip-older", action="store_true")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    Console().info("all under TCG")
    if given.again:
        for _ in range(given.rounds):
            again(boot=given.boot)
        return
    works: dict[str, Callable[[], Built]] = {"ours": lambda: ours("auto", boot=given.boot)}
    if given.appliance:
        works["ours, in the appliance"] = lambda: ours("appliance", boot=given.boot)
    if not given.skip_older:
        works["the older steps"] = older
    found: dict[str, list[float]] = {}
    for number in range(given.rounds):
        order = list(works) if number % 2 == 0 else list(works)[::-1]
        built = {}
        for who in order:
            built[who] = works[who]()
            tell(who, built[who])
        for who in list(works)[1:]:
            for what, ratio in ratios(built["ours"], built[who]).items():
                found.setdefault(f"beside {who}: {what}", []).append(ratio)
    for what, values in found.items():
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        print(f"{what}: {statistics.median(values):.3f}{spread}")


if __name__ == "__main__":
    main()
