"""Hold what the steps of an image's build share, and the disk that comes of them."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.bases.prepared import LayerBase, Package, Prepared
from lago_images.building.model import Context, Request
from lago_images.building.progress import Progress
from lago_images.building.reservations import Machine
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Children, Runner, search_path
from lago_images.repository.records.manifest import EngineRecord

# Ends a program when we are killed; it stays the same process.
_DIE_TOGETHER = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An image to build, and its folders and programs.

    Attributes:
        accel: What guests run on here.
        folder: The image's part of the work directory.
        base: What a layer stands on; None for others.
        children: The run's programs.
        machine: Whose memory and processors the run shares.
    """

    request: Request
    context: Context
    accel: Acceleration
    folder: Path
    base: LayerBase | None
    children: Children
    machine: Machine
    progress: Progress

    @property
    def log(self) -> Path:
        return self.progress.log

    @property
    def console_log(self) -> Path:
        return self.log.with_suffix(".console.log")

    @property
    def screenshot(self) -> Path:
        """Return where the guest's screen is kept when a boot test refuses it."""
        return self.log.with_suffix(".png")

    def runner(self) -> Runner:
        """Return what starts the image's programs, which end with the run or with this process."""
        environ = self.context.environ
        has_setpriv = sys.platform == "linux" and shutil.which(
            _DIE_TOGETHER[0], path=search_path(environ)
        )
        return Runner(
            environ={**environ, "TMPDIR": str(self.folder)},
            log=self.log,
            prefix=_DIE_TOGETHER if has_setpriv else (),
            children=self.children,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A disk that may be published; ``start_time`` is when its build began."""

    disk: Path
    virtual_size: int
    prepared: Prepared
    packages: tuple[Package, ...] | None
    engine: EngineRecord | None
    start_time: float
