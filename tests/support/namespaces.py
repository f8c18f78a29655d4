"""Whether this machine can run the engine of namespaces, and what tests of it are done on."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from lago_images.building import ext4
from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise.namespace import (
    agent,
    customise,
    disk,
    guest_archives,
    guest_calls,
    guest_root,
    partitions,
    sandbox,
    unpack_ext4,
    user_namespace,
)
from lago_images.errors import Error
from lago_images.host.process import Runner, search_path
from lago_images.settings import Settings
from tests.support.images import Image, a_context, a_spec
from tests.support.kept import kept_image
from tests.tools import cannot


def need_namespaces() -> None:
    """Skip a module where this machine gives no namespaces; in CI fail where programs are missing.

    A container's kernel may refuse them whatever is installed: the appliance is the engine there.
    """
    if missing := sandbox.missing_programs(search_path(Runner().environ), network=True):
        cannot("not installed: " + ", ".join(missing))
    if why := _why_none():
        pytest.skip(f"no namespaces: {why}", allow_module_level=True)


@cache
def _why_none() -> str:
    runner = Runner()
    try:
        with user_namespace.namespace(runner, user_namespace.block()) as held:
            sandbox.try_out(held.runner(runner))
            user_namespace.loopback(runner, held)
            with user_namespace.networked(runner, held):
                return ""
    except Error as error:
        return error.message


_REMOVED = (
    *(
        "/usr/share/man",
        "/usr/share/doc",
        "/usr/share/locale",
        "/usr/share/zoneinfo",
        "/boot/[iv]*",
    ),
    *("/usr/lib/modules", "/usr/lib/udev/hwdb*", "/usr/share/perl", "/usr/share/ca-certificates"),
    *("/etc/ssl/certs", "/usr/lib/x86_64-linux-gnu/perl", "/usr/share/perl5"),
)


def in_namespaces(
    folder: Path,
    base: Image,
    text: str,
    script: str = "",
    *,
    network: bool = False,
    environ: dict[str, str] | None = None,
    kept: Path | None = None,
) -> Prepared:
    """The disk of a spec's commands, done in namespaces whatever the rules say of them.

    Args:
        folder: An empty one; its ``work`` is the work directory.
        base: What the commands are for.
        text: The commands; ``run attack.sh`` runs the script.
        script: The content of ``attack.sh``.
        network: Whether they may use it.
        environ: Of who builds; without, this process's.
        kept: The folder of what builds keep; without, one of its own.
    """
    settings = Settings(folder=folder, repository="s3://images/all", network=network)
    context = a_context(folder, settings=settings, environ=environ)
    context = replace(context, cache=kept or context.cache)
    (context.root / "attack.sh").write_text(script)
    work = folder / "work"
    work.mkdir(mode=0o700)
    spec = a_spec(f"#name=a\n#base=layer:debian-12\n#arch=x86_64\n#distro=debian\n{text}")
    runner = Runner(environ=context.environ, log=folder / "log")
    return customise.customise(spec, base.copy(work), work, context, runner)


def small(debian12: Image) -> Image:
    """A Debian 12 that cannot boot and has no documents, in a fraction of the files."""
    text = "".join(f"delete {path}\n" for path in _REMOVED)
    in_guest = (agent, guest_archives, guest_calls, guest_root)
    modules = (*in_guest, customise, disk, ext4, partitions, sandbox, unpack_ext4, user_namespace)
    parts = [
        debian12.disk.parent.name,
        text,
        *(Path(m.__file__).read_text() for m in modules),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cache = debian12.disk.parents[1]
    return kept_image(cache, "small", key, lambda folder: in_namespaces(folder, debian12, text))
