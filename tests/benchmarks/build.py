"""The build of one real image, beside the steps of the older pipeline.

    python -m tests.benchmarks.build [--offline] [--skip-older]

Both start from the same Debian 12 (made by bootstrap, and kept), apply the same commands, and end
with a compressed disk and its checksums on this machine. Ours: ``build_chains``, one launch of the
appliance and one pass over the disk. The older: an overlay, virt-customize, virt-sysprep,
virt-sparsify --in-place, qemu-img convert, xz --best --block-size=16777216 -T0, and four reads for
checksums. ``--offline`` leaves out the commands that need a mirror.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lago_images.building.chain import build_chains
from lago_images.building.customise.sysprep import appliance_environment
from lago_images.building.model import Context, Request
from lago_images.console import Console
from lago_images.host.kvm import Acceleration
from tests.support.images import Image, a_context, a_spec, debian12

QUIET = "#boot-test=no: only the build is measured\n"
HEAD = f"#name=b\n#base=simple:base.raw\n#arch=x86_64\n#distro=debian\n{QUIET}"
COMMANDS = """\
root-password password:123456
edit /etc/motd:s/Debian/lago/
write /etc/benchmark:measured
run-command dpkg -l > /root/packages
"""
ONLINE = "update\ninstall tgt,nfs-common\n"
SUMS = (
    "sha1sum disk.qcow2",
    "sha256sum disk.qcow2",
    "sha512sum disk.qcow2.xz",
    "md5sum disk.qcow2",
)

Cost = tuple[float, float]


def measured(work: Callable[[], None]) -> Cost:
    """Seconds by the clock and of processors."""
    wall, before = time.perf_counter(), _processor()
    work()
    return time.perf_counter() - wall, _processor() - before


def _processor() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def ready(base: Image, folder: Path) -> Context:
    """A specs repository with the base in it."""
    context = a_context(folder)
    copy = ["cp", "--reflink=auto", "--sparse=always"]
    subprocess.run([*copy, base.disk, context.root / "base.raw"], check=True, timeout=600)
    return context


def ours(context: Context, commands: str) -> int:
    """Build with this project; the bytes of the compressed disk."""
    spec = a_spec(HEAD + commands, "benchmark")
    request = Request(spec=spec, fingerprint="sha256:0", commit="unknown", dirty=False)
    [result] = build_chains([[request]], context, accel=Acceleration(name="tcg"), jobs=1)
    assert result.manifest is not None, (result.error, result.tail)
    return result.manifest.disk.compressed_size


def steps(base: Image, commands: str, accel: Acceleration, folder: Path) -> dict[str, Cost]:
    """The older pipeline, step by step."""
    (folder / "commands").write_text(commands)
    environ = {**os.environ, **appliance_environment(accel)}

    def step(*argv: str) -> Callable[[], None]:
        def run() -> None:
            subprocess.run(
                argv, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=3600
            )

        return run

    overlay = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.disk))
    xz = ("xz", "--best", "--block-size=16777216", "-T0", "--keep", "disk.qcow2")
    works = {
        "overlay": step(*overlay, "overlay.qcow2"),
        "virt-customize": step(
            "virt-customize", "-a", "overlay.qcow2", "--commands-from-file", "commands"
        ),
        "virt-sysprep": step("virt-sysprep", "-a", "overlay.qcow2"),
        "virt-sparsify": step("virt-sparsify", "--in-place", "overlay.qcow2"),
        "qemu-img convert": step(
            "qemu-img", "convert", "-O", "qcow2", "overlay.qcow2", "disk.qcow2"
        ),
        "xz --best": step(*xz),
        "four checksums": step("sh", "-ec", "; ".join(SUMS)),
    }
    return {name: measured(work) for name, work in works.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--skip-older", action="store_true")
    given = parser.parse_args()
    commands = COMMANDS if given.offline else ONLINE + COMMANDS
    accel = Acceleration(name="tcg")
    base = debian12()
    Console().info("both under TCG, from the same disk")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        context, sizes = ready(base, Path(name)), []
        mine = measured(lambda: sizes.append(ours(context, commands)))
    print(f"ours            {mine[0]:6.0f} s {mine[1]:6.0f} processor s {sizes[0] / 1e6:7.1f} MB")
    if given.skip_older:
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        older = steps(base, commands, accel, Path(name))
        size = (Path(name) / "disk.qcow2.xz").stat().st_size
    for step, (wall, work) in older.items():
        print(f"  {step:18} {wall:6.0f} s {work:6.0f} processor s")
    wall = sum(cost[0] for cost in older.values())
    work = sum(cost[1] for cost in older.values())
    print(f"the older steps {wall:6.0f} s {work:6.0f} processor s {size / 1e6:7.1f} MB")
    print(
        f"ours is {mine[0] / wall:.2f} of their time, {mine[1] / work:.2f} of their work, "
        f"{sizes[0] / size:.3f} of their size"
    )


if __name__ == "__main__":
    main()
