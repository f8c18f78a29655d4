"""Disks that take long to build, kept between runs beside the bootstrapped one."""

import fcntl
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lago_images.building.bases.prepared import Prepared
from tests.support.images import Image, read_image, write_image


def kept_image(cache: Path, name: str, key: str, build: Callable[[Path], Prepared]) -> Image:
    """The image of a key, from the cache or built now; those of its name's other keys are removed.

    Args:
        cache: The folder of all that is kept.
        name: Of what is kept.
        key: A digest of everything that the image is made of.
        build: Builds the image in an empty folder.
    """
    kept = cache / f"{name}-{key}"
    # Not the cache's own lock: one image may be built on another.
    with (cache / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)
            _keep(kept, build)
    return read_image(kept)


def _keep(kept: Path, build: Callable[[Path], Prepared]) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        prepared = build(Path(name))
        made = Path(name) / "made"
        made.mkdir()
        write_image(Image.of(prepared), made)
        made.rename(kept)
