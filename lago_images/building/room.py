"""How much room a build will take, as far as can be told before it is begun."""

from pathlib import Path

from lago_images.building.bases.model import LayerBase
from lago_images.building.model import Context
from lago_images.host import space
from lago_images.spec.model import BaseKind, Spec
from lago_images.storage.directory import DirectoryStore

_MIB = 2**20
# Debian 12 bootstrapped takes 0.4 GiB, and twice that while it is unpacked beside its disk; the
# templates of libguestfs.org are 0.7 to 2.5 GiB; cloud images from URLs 0.4 to 1.5 GiB.
_USUAL = {
    BaseKind.BOOTSTRAP: 1024 * _MIB,
    BaseKind.LIBGUESTFS: 2560 * _MIB,
    BaseKind.SIMPLE: 1536 * _MIB,
    BaseKind.LAYER: 1536 * _MIB,
}
_PACKED = (".xz", ".gz")
_PACKED_FACTOR = 6
_GROWTH = 1024 * _MIB
# What xz leaves of a disk: 0.27 of a Debian base, and never more than all of it.
_COMPRESSED = 2


def demand(spec: Spec, base: LayerBase | None, folder: Path, context: Context) -> None:
    """Let only a build begin that there is room for.

    Raises:
        HostError: There is too little; names the folder, the bytes needed and the bytes free.
    """
    size = disk_size(spec, base, context.root)
    # The disk that is worked on and the finished one are there at the same time.
    space.demand(folder, 2 * size, f"building {spec.name}")
    if isinstance(context.store, DirectoryStore):
        space.demand(context.store.path, size // _COMPRESSED, f"storing {spec.name}")


def disk_size(spec: Spec, base: LayerBase | None, root: Path) -> int:
    """Bytes that the finished disk file may have."""
    growth = _GROWTH if spec.operations else 0
    return _base_size(spec, base, root) + growth


def _base_size(spec: Spec, base: LayerBase | None, root: Path) -> int:
    if base is not None:
        return base.manifest.disk.size
    local = root / spec.base.name
    if spec.base.kind is BaseKind.SIMPLE and local.is_file():
        status = local.stat()
        packed = local.suffix in _PACKED
        return status.st_size * _PACKED_FACTOR if packed else status.st_blocks * 512
    return _USUAL[spec.base.kind]
