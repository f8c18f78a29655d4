"""The virtual size that a spec asks for."""

import json

from lago_images.building.bases.model import Prepared
from lago_images.errors import Problem, SpecError
from lago_images.host.process import Runner
from lago_images.spec.model import Spec
from lago_images.spec.properties import size_bytes


def enlarge(spec: Spec, prepared: Prepared, runner: Runner) -> Prepared:
    """Make a base's disk as large as the property ``size`` says, when there is one.

    Only the disk grows. Its last partition and file system grow when the guest starts, in guests
    that do so (ours, and cloud images), or by ``virt-builder --size``.

    Raises:
        SpecError: The base is larger already.
    """
    text = spec.properties.get("size")
    size = size_bytes(text) if text else None
    if size is None:
        return prepared
    disk = str(prepared.disk)
    info = ["qemu-img", "info", "-f", prepared.format, "--output", "json", disk]
    now = int(json.loads(runner.capture(info, doing=f"reading {disk}"))["virtual-size"])
    if size < now:
        what = f"size={text} is less than the base's {now} bytes: a disk can only grow"
        raise SpecError([Problem(spec.path, spec.lines.get("size"), what)])
    if size > now:
        runner.run(
            ["qemu-img", "resize", "-q", "-f", prepared.format, disk, str(size)],
            doing="enlarging the disk",
        )
    return prepared
