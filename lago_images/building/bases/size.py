"""The virtual size that a spec asks for."""

from collections.abc import Mapping
from typing import Any

from lago_images.building import disks
from lago_images.building.bases.model import Prepared
from lago_images.errors import Problem, SpecError
from lago_images.host.process import Runner
from lago_images.spec.model import Spec
from lago_images.spec.properties import size_bytes


def enlarge(
    spec: Spec, prepared: Prepared, runner: Runner, *, facts: Mapping[str, Any] | None = None
) -> Prepared:
    """Make a base's disk as large as the property ``size`` says, when there is one.

    Only the disk grows. Its last partition and file system grow when the guest starts, in guests
    that do so (ours, and cloud images), or by ``virt-builder --size``.

    Args:
        spec: Has the property.
        prepared: The base's disk.
        runner: Starts qemu-img.
        facts: What ``qemu-img info`` told of the disk, where it was asked already.

    Raises:
        SpecError: The base is larger already.
    """
    text = spec.properties.get("size")
    size = size_bytes(text) if text else None
    if size is None:
        return prepared
    disk = str(prepared.disk)
    if facts is None:
        facts = disks.info(prepared.disk, prepared.format, runner, doing=f"reading {disk}")
    now = int(facts["virtual-size"])
    if size < now:
        what = f"size={text} is less than the base's {now} bytes: a disk can only grow"
        raise SpecError([Problem(spec.path, spec.lines.get("size"), what)])
    if size > now:
        runner.run(
            ["qemu-img", "resize", "-q", "-f", prepared.format, disk, str(size)],
            doing="enlarging the disk",
        )
    return prepared
