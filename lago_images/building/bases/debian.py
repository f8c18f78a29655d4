"""Debian's releases, what a guest of each needs, and where its packages come from."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from lago_images.errors import CommandError, Problem, SpecError, ToolMissingError
from lago_images.host.process import Runner
from lago_images.spec.model import Spec

_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z")
_URL = re.compile(r"https?://[^\s\"'\[\]]+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?(/[a-z-]+)?")
# The smallest set with what lago and virt-builder use: ifupdown, because lago writes
# /etc/network/interfaces; the guest agent, because it is how readiness is tested.
_PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "kmod",
    "procps",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ifupdown",
    "isc-dhcp-client",
    "openssh-server",
    "qemu-guest-agent",
    "ca-certificates",
    "e2fsprogs",
    "fdisk",
    "less",
    "vim-tiny",
    "sudo",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A Debian release; ``number`` is its major version."""

    codename: str
    number: int

    @property
    def title(self) -> str:
        return f"Debian {self.number} ({self.codename})"


RELEASES = (
    Release(codename="bullseye", number=11),
    Release(codename="bookworm", number=12),
    Release(codename="trixie", number=13),
)
# The kernel for virtual machines: a quarter of the plain one's size, with NFS server, iSCSI
# target and KVM, without drivers for hardware. Named by Debian's architecture.
_ARCHES = {"x86_64": ("amd64", "linux-image-cloud-amd64")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to bootstrap.

    Attributes:
        arch: As Debian spells it.
        packages: To install besides the essential ones.
        sources: Lines for apt's sources.list; empty for mmdebstrap's own mirrors.
    """

    release: Release
    arch: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def detail(self) -> str:
        """Where the packages came from, for the manifest."""
        return "; ".join(self.sources) or "mmdebstrap's default mirrors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """URLs of Debian's archive and of its security archive."""

    main: str
    security: str

    @classmethod
    def of(cls, main: str, security: str | None = None) -> Self:
        """The security archive is beside the main one and named so, on Debian's own layout."""
        derived = re.sub(r"/debian(?=/|$)", "/debian-security", main, count=1)
        return cls(main=main, security=security or derived)


def find_release(name: str) -> Release | None:
    """The release that ``debian-12``, ``debian12``, ``bookworm`` or ``debian-bookworm`` name."""
    for release in RELEASES:
        if re.fullmatch(rf"(debian-?)?({release.number}|{release.codename})", name.lower()):
            return release
    return None


def recipe(spec: Spec, host: Mirrors | None) -> Recipe:
    """Decide what a spec with a ``bootstrap:`` base bootstraps.

    Args:
        spec: Its base, and its properties ``packages``, ``mirror`` and ``snapshot``.
        host: The mirrors that this host's apt uses, when it is a Debian.

    Raises:
        SpecError: With every problem.
    """
    problems: list[Problem] = []

    def complain(key: str, what: str) -> None:
        line = spec.lines.get(key, spec.base.line)
        problems.append(Problem(spec.path, line, what))

    release = find_release(spec.base.name)
    if release is None:
        known = ", ".join(f"debian-{r.number}" for r in RELEASES)
        complain("base", f"no release named {spec.base.name!r} can be bootstrapped; known: {known}")
    if spec.arch not in _ARCHES:
        complain("arch", f"bootstrap: makes disks for {', '.join(_ARCHES)} only, not {spec.arch}")
    extra = tuple(re.split(r"[\s,]+", spec.properties.get("packages", "").strip(" ,")))
    for name in extra:
        if name and not _PACKAGE.fullmatch(name):
            complain("packages", f"{name!r} is not a Debian package's name")
    mirrors = _mirrors(spec.properties, host, complain)
    if problems or release is None:
        raise SpecError(problems)
    arch, kernel = _ARCHES[spec.arch]
    return Recipe(
        release=release,
        arch=arch,
        packages=(kernel, *_PACKAGES, *filter(None, extra)),
        sources=_sources(release, mirrors, spec.properties),
    )


def host_mirrors(runner: Runner) -> Mirrors | None:
    """The mirrors this host's apt gets Debian from; None when it is not a Debian."""
    try:
        # fmt: off
        out = runner.capture(
            [
                "apt-get", "indextargets",
                "--format", "$(LABEL)\t$(REPO_URI)",
                "Created-By: Packages", "Origin: Debian",
            ],
            doing="asking apt for its mirrors",
        )
        # fmt: on
    except (CommandError, ToolMissingError):
        return None
    found: dict[str, str] = {}
    for line in out.decode(errors="replace").splitlines():
        label, _, url = line.partition("\t")
        found.setdefault(label, url.rstrip("/"))
    if "Debian" not in found:
        return None
    return Mirrors.of(found["Debian"], found.get("Debian-Security"))


def _mirrors(
    properties: Mapping[str, str], host: Mirrors | None, complain: Callable[[str, str], None]
) -> Mirrors | None:
    url = properties.get("mirror", "").rstrip("/")
    snapshot = properties.get("snapshot", "")
    if snapshot and not _SNAPSHOT.fullmatch(snapshot):
        complain("snapshot", f"snapshot is a time like 20260801T000000Z, not {snapshot!r}")
    if snapshot and not url:
        complain("snapshot", "snapshot needs a mirror= that keeps snapshots, one folder a moment")
    if url and not _URL.fullmatch(url):
        complain("mirror", f"{url!r} is not a URL that apt can use")
    if not url:
        return host
    return Mirrors.of(f"{url}/{snapshot}" if snapshot else url)


def _sources(
    release: Release, mirrors: Mirrors | None, properties: Mapping[str, str]
) -> tuple[str, ...]:
    if mirrors is None:
        return ()
    # A snapshot's Release files have expired by their nature; they are still signed.
    option = "[check-valid-until=no] " if "snapshot" in properties else ""
    main, name = mirrors.main, release.codename
    return (
        f"deb {option}{main} {name} main",
        f"deb {option}{main} {name}-updates main",
        f"deb {option}{mirrors.security} {name}-security main",
    )
