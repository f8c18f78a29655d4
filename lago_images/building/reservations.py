"""Reserve what builds take of the machine, and end programs that have no disk space left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Event, Thread

from lago_images.building.bases.prepared import FinishedBase, LayerBase
from lago_images.building.customise.namespace.kept_packages import KeptPackages
from lago_images.building.customise.namespace.rules import APPLIANCE, may_keep
from lago_images.building.model import Context
from lago_images.disks.compress import THREAD_MEMORY, fitting_threads
from lago_images.errors import Error, HostError
from lago_images.host import space
from lago_images.host.allowance import allowance
from lago_images.host.process import Children, Runner
from lago_images.specs.model import BaseKind, Spec

_MIB = 2**20
# An appliance's and a boot test's 2 GiB, and QEMU's own.
_GUEST = 2304 * _MIB
_POLL = 0.5
_LOOK = 1.0
_LEAST = 32 * _MIB
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
# What xz leaves of a disk: 0.27 of a Debian base, a qcow2 0.38, and never more than all of it.
_COMPRESSED = 2
# Of packages that are kept: as given, in apt's folder, and as handed on where they are the same
# again. What is fetched beyond them is not known before: ``watched`` ends a build without room.
_KEPT_COPIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The bytes that an image's build needs in a folder at once, and their purpose."""

    folder: Path
    size: int
    purpose: str


def needs(spec: Spec, base: LayerBase | None, folder: Path, context: Context) -> tuple[Need, ...]:
    """Return the needs of an image's build: in its work directory, and where it is stored."""
    size = disk_size(spec, base, context.root)
    building = _building(spec, base, size, context)
    required = [Need(folder=folder, size=building, purpose=f"building {spec.name}")]
    if context.store.folder is not None:
        stored = size // _COMPRESSED * (1 + len(context.settings.publish_also))
        required.append(
            Need(folder=context.store.folder, size=stored, purpose=f"storing {spec.name}")
        )
    return tuple(required)


def need_again(
    spec: Spec, base: LayerBase | None, folder: Path, context: Context, *, published: int
) -> Need:
    """Return the need of building an image again, and of comparing it with its published disk.

    ``published`` is the bytes of that disk's file. Nothing is stored.
    """
    building = _building(spec, base, disk_size(spec, base, context.root), context)
    # Both disks, and one of them as a raw file: the disk is removed when it is one.
    comparing = 3 * published
    return Need(
        folder=folder,
        size=max(building, comparing),
        purpose=f"building {spec.name} again and comparing the disks",
    )


def _building(spec: Spec, base: LayerBase | None, size: int, context: Context) -> int:
    copies = _copies(spec, base, context.settings.engine)
    return copies * size + _KEPT_COPIES * _kept_size(spec, context)


def _kept_size(spec: Spec, context: Context) -> int:
    """Return the bytes of packages that a guest's apt is given."""
    if not spec.operations or context.settings.engine == APPLIANCE:
        return 0
    if not may_keep(context.environ):
        return 0
    return KeptPackages.of(spec, context).size()


def _copies(spec: Spec, base: LayerBase | None, engine: str) -> int:
    """Return how many times as large as a disk all that is there of it at once may be."""
    # The disk that is worked on and the finished one, as later the finished one and its smaller
    # other forms are, one by one.
    usual = 2
    if not spec.operations or engine == APPLIANCE:
        return usual
    # In namespaces its folder and a new disk are beside it, and a layer's base as it was stored.
    if spec.base.kind is BaseKind.LAYER:
        return 3 if isinstance(base, FinishedBase) else 4
    return 3 if spec.base.kind is BaseKind.BOOTSTRAP else usual


class Machine:
    """The memory and processors that the chains of a run share.

    Guests, which are appliances and boot tests, and compressions wait for one another where they
    would not fit: a machine that swaps, or emulates more guests than it has processors, does
    all of them late, and boot tests fail by their time limits.

    Args:
        memory: Bytes that may be used.
        processors: How many may be used.

    Attributes:
        threads: How many compress a disk, with room for one guest beside them: a disk is booted
            while it is compressed.
    """

    def __init__(self, memory: int, processors: int) -> None:
        self.threads = fitting_threads(memory - _GUEST, processors)
        fitting = (memory - self.threads * THREAD_MEMORY) // _GUEST
        self._free = {"guest": max(1, min(fitting, max(2, processors))), "compression": 1}
        self._changed = Condition()

    @property
    def guests(self) -> int:
        """Return how many more guests may be started now."""
        return self._free["guest"]

    def guest(self, check: Callable[[], None]) -> AbstractContextManager[None]:
        """Wait until one more guest fits; what ``check`` raises ends that."""
        return self._take("guest", check)

    def compression(self, check: Callable[[], None]) -> AbstractContextManager[None]:
        """Wait until no other disk is compressed."""
        return self._take("compression", check)

    @contextmanager
    def _take(self, kind: str, check: Callable[[], None]) -> Iterator[None]:
        with self._changed:
            while not self._free[kind]:
                check()
                self._changed.wait(_POLL)
            self._free[kind] -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free[kind] += 1
                self._changed.notify_all()


def this_machine(root: Path = Path("/")) -> Machine:
    """Return this machine, as far as this process may use it; ``root`` is where it is read from."""
    allowed = allowance(root)
    return Machine(allowed.memory // 4 * 3, allowed.processors)


class Reservations:
    """Disk space that the images of a run share: what one reserves another cannot.

    An image for which there is too little waits while others are at work: they may leave enough.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._working = 0
        self._reserved: list[Mapping[int, int]] = []

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Count a thread as working: whoever waits for disk space may wait for its end."""
        with self._changed:
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def reserve(self, required: Sequence[Need], waiting: Callable[[], None]) -> Iterator[None]:
        """Reserve disk space for an image alone.

        Args:
            required: Its needs. On one file system the largest counts: they are not needed at
                the same time.
            waiting: Called now and then while it waits; what it raises ends that.

        Raises:
            HostError: There is too little and nobody else works; names the folder, the bytes
                needed and the bytes free.
        """
        reserved: dict[int, int] = {}
        for need in required:
            device = space.device(need.folder)
            reserved[device] = max(reserved.get(device, 0), need.size)
        with self._changed:
            while not all(self._fits(need) for need in required):
                self._wait(required, waiting)
            self._reserved.append(reserved)
        try:
            yield
        finally:
            with self._changed:
                self._reserved.remove(reserved)
                self._changed.notify_all()

    def _fits(self, need: Need) -> bool:
        device = space.device(need.folder)
        taken = sum(sizes.get(device, 0) for sizes in self._reserved)
        return space.free(need.folder) >= need.size + taken

    def _wait(self, required: Sequence[Need], waiting: Callable[[], None]) -> None:
        self._working -= 1
        try:
            if self._working <= 0:
                for need in required:
                    space.demand(need.folder, need.size, need.purpose)
            waiting()
            self._changed.wait(_POLL)
        finally:
            self._working += 1


@contextmanager
def watched(
    runner: Runner,
    folder: Path,
    doing: str,
    *,
    free: Callable[[Path], int] = space.free,
    every: float = _LOOK,
) -> Iterator[Runner]:
    """Yield a runner whose programs are ended when a folder has no disk space left.

    QEMU by default pauses a guest that it cannot write for until there is more, and
    says nothing (werror=enospc); libguestfs tells it nothing else, and waits.

    Args:
        runner: Whose programs are ended; the end of its run ends these, too.
        folder: Where they write.
        doing: Their purpose.
        free: Returns the free bytes of a folder.
        every: Seconds between looks.

    Raises:
        HostError: There was too little; names the folder and the bytes free.
    """
    children, is_over, left = Children(runner.children), Event(), list[int]()

    def watch() -> None:
        try:
            while (bytes_free := free(folder)) >= _LEAST:
                if is_over.wait(every):
                    return
                runner.children.check()
            left.append(bytes_free)
        except KeyboardInterrupt:
            pass
        children.end()

    watcher = Thread(target=watch, name="disk-space", daemon=True)
    watcher.start()
    try:
        yield replace(runner, children=children)
    except (Error, KeyboardInterrupt):
        if not left:
            raise
        message = (
            f"{doing} was stopped: no room in {folder}, where {space.shown(left[0])} were free"
        )
        raise HostError(message, hint=space.HINT) from None
    finally:
        is_over.set()
        watcher.join()


def lack(folder: Path) -> str:
    """Return that a folder has no room left, for an error that may come of it, or nothing."""
    bytes_free = space.free(folder)
    return (
        f"no room in {folder}, where {space.shown(bytes_free)} are free"
        if bytes_free < _LEAST
        else ""
    )


def disk_size(spec: Spec, base: LayerBase | None, root: Path) -> int:
    """Return the bytes that the finished disk file may have."""
    growth = _GROWTH if spec.operations else 0
    return _base_size(spec, base, root) + growth


def _base_size(spec: Spec, base: LayerBase | None, root: Path) -> int:
    if isinstance(base, FinishedBase):
        return base.disk.stat().st_size
    if base is not None:
        return base.manifest.disk.size
    local = root / spec.base.name
    if spec.base.kind is BaseKind.SIMPLE and local.is_file():
        status = local.stat()
        packed = local.suffix in _PACKED
        return status.st_size * _PACKED_FACTOR if packed else status.st_blocks * 512
    return _USUAL[spec.base.kind]
