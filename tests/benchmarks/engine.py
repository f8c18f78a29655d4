"""A base and a layer with packages, by the engine of namespaces and by the appliance.

    python -m tests.benchmarks.engine [--packages NAME,…] [--rounds N] [--commands-only]

Each engine builds the same chain, from the packages of Debian 12 to two compressed disks with
their checksums, without boot tests. It needs a mirror. What both do alike, bootstrapping and
compressing, is in both figures; ``customising`` is what is left when the engine is the difference.
``--commands-only`` does no more than that, on a Debian 12 that was bootstrapped before.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from lago_images.building import image
from lago_images.building.chain import build_chains
from lago_images.building.customise import engine
from lago_images.building.model import Context, Request
from lago_images.console import Console
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.settings import Settings
from lago_images.specs.model import Spec
from tests.benchmarks.build import Cost, measured
from tests.support.images import a_context, a_spec, allocated, debian12

BASE = """\
#name=a base
#base=bootstrap:debian-12
#arch=x86_64
#distro=debian
#boot-test=no: only its commands are measured
root-password password:123456
edit /etc/motd:s/Debian/lago/
"""
QUIET = "#boot-test=no: only its commands are measured\n"
LAYER = f"#name=a layer\n#base=layer:a-base\n#arch=x86_64\n#distro=debian\n{QUIET}"
ENGINES = ("namespace", "appliance")
TCG = Acceleration(name="tcg")


@dataclass(frozen=True, kw_only=True)
class Built:
    """Wall and processor seconds of a chain, those of its commands alone, and its bytes."""

    whole: Cost
    commands: Cost
    size: int


def specs(packages: str) -> list[Spec]:
    return [a_spec(BASE, "a-base"), a_spec(f"{LAYER}install {packages}\n", "a-layer")]


def whole_chain(chosen: str, packages: str) -> Built:
    """Build the chain with an engine."""
    sizes, costs = [], []

    def timed(*args, **named):
        done = []
        costs.append(measured(lambda: done.append(engine.customise(*args, **named))))
        return done[0]

    def work(context: Context) -> None:
        chain = [
            Request(spec=spec, fingerprint=f"sha256:{n}", commit="unknown", dirty=False)
            for n, spec in enumerate(specs(packages))
        ]
        for result in build_chains([chain], context, accel=TCG, jobs=1):
            assert result.manifest is not None, (result.error, result.tail)
            assert result.manifest.engine.name == chosen
            sizes.append(result.manifest.disk.compressed_size)

    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        context = a_context(Path(name), settings=Settings(folder=Path(name), engine=chosen))
        with mock.patch.object(image, "customise", timed):
            whole = measured(lambda: work(context))
    return Built(whole=whole, commands=total(costs), size=sum(sizes))


def commands_only(chosen: str, packages: str) -> Built:
    """Carry out the chain's commands, of the layer on what the base's left."""
    costs = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        context = a_context(folder, settings=Settings(folder=folder, engine=chosen))
        runner = Runner(log=folder / "log")
        prepared = debian12().copy(folder)
        for number, spec in enumerate(specs(packages)):
            work, done = folder / str(number), []
            work.mkdir()
            given = (spec, prepared, work, context, runner)

            def customise(given=given, done=done) -> None:
                done.append(engine.customise(*given, accel=TCG))

            costs.append(measured(customise))
            assert done[0].engine.name == chosen
            prepared = done[0].prepared
        size = allocated(prepared.disk)
    return Built(whole=total(costs), commands=total(costs), size=size)


def total(costs: Sequence[Cost]) -> Cost:
    return sum(each[0] for each in costs), sum(each[1] for each in costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", default="tgt,open-iscsi,lvm2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--commands-only", action="store_true")
    given = parser.parse_args()
    Console().info("both under TCG, the appliance's guests too")
    ratios: list[tuple[float, float]] = []
    build = commands_only if given.commands_only else whole_chain
    for number in range(given.rounds):
        # Each is first in turn: the mirror's answers are cached by whoever is between.
        order = ENGINES if number % 2 == 0 else ENGINES[::-1]
        built = {}
        for chosen in order:
            built[chosen] = each = build(chosen, given.packages)
            print(
                f"{chosen:9} chain {each.whole[0]:6.0f} s {each.whole[1]:6.0f} processor s, "
                f"customising {each.commands[0]:6.1f} s {each.commands[1]:6.1f} processor s, "
                f"{each.size / 1e6:.1f} MB",
                flush=True,
            )
        own, rival = (built[chosen] for chosen in ENGINES)
        ratios.append((rival.whole[0] / own.whole[0], rival.commands[0] / own.commands[0]))
        print(f"faster: chain {ratios[-1][0]:.1f} times, customising {ratios[-1][1]:.1f} times")
    if len(ratios) > 1:
        for name, values in zip(("chain", "customising"), zip(*ratios, strict=True), strict=True):
            spread = f"{min(values):.1f} to {max(values):.1f}"
            print(f"median: {name} {statistics.median(values):.1f} times ({spread})")


if __name__ == "__main__":
    main()
