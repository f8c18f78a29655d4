"""``libguestfs:`` bases: virt-builder's templates.

virt-builder itself would start an appliance to hand out a template, before anything is customised.
The signed index has all that is needed to do without: the file's name and its checksum.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lago_images.building.bases import sources
from lago_images.building.bases.model import Prepared
from lago_images.building.bases.simple import fetch, finished
from lago_images.building.model import Context
from lago_images.building.unpack import Checksum, unpack
from lago_images.errors import BuildError
from lago_images.host.process import Runner
from lago_images.repository.manifest import BaseRecord
from lago_images.spec.model import Spec

_SHA512 = re.compile(r"[0-9a-f]{128}")


def prepare(spec: Spec, workdir: Path, context: Context, runner: Runner) -> Prepared:
    """The unmodified disk of a template, checked against its signed index.

    Raises:
        BuildError: No source has the template, or it could not be had.
        SigningError: An index is not signed as it must be.
    """
    found = sources.find(
        spec.base.name,
        spec.arch,
        sources.configured(context.settings, context.environ),
        folder=context.settings.folder,
        environ=context.environ,
        runner=runner,
    )
    _refuse_elsewhere(found)
    checksum = _checksum(found)
    disk = workdir / "base.disk"
    context.console.info(f"{spec.name}: template {found.url}")
    if found.url.startswith("file://"):
        source = Path(unquote(urlsplit(found.url).path))
        if not source.is_file():
            raise BuildError(f"the template {found.url} is not there")
        unpack(source, disk, expected=checksum, what=found.url)
    else:
        fetch(found.url, checksum, disk, context)
    detail = f"revision {found.entry.revision} of {found.entry.name} in {found.source}"
    record = BaseRecord(ref=str(spec.base), digest=str(checksum), detail=detail)
    return finished(spec, disk, record, what=found.url, runner=runner)


def _refuse_elsewhere(found: sources.Template) -> None:
    """A template lies beside or below its index, and not on this host's disk by surprise."""
    if not found.url.startswith(found.source.rpartition("/")[0] + "/"):
        raise BuildError(f"{found.source} names a template elsewhere, neither beside nor below it")


def _checksum(found: sources.Template) -> Checksum:
    digits = found.entry.checksum or found.entry.get("checksum")
    if not _SHA512.fullmatch(digits):
        raise BuildError(
            f"{found.source} has no sha512 checksum for {found.entry.name}",
            hint="a template without a checksum could be anything; ask its publisher for one",
        )
    return Checksum(algorithm="sha512", digits=digits)
