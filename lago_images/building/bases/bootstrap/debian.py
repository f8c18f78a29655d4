"""Decide what is bootstrapped: Debian's releases, a guest's packages, and their mirrors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lago_images.errors import BuildError, CommandError, Problem, SpecError, ToolMissingError
from lago_images.host.process import Runner
from lago_images.specs.bases import has_uefi, security_archive
from lago_images.specs.model import Spec
from lago_images.specs.names import shown
from lago_images.specs.properties import value_problem, words

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
    """A Debian release: its major version, and when it was released, in seconds since the epoch."""

    codename: str
    number: int
    date: int

    @property
    def title(self) -> str:
        return f"Debian {self.number} ({self.codename})"


RELEASES = (
    Release(codename="bullseye", number=11, date=1628899200),
    Release(codename="bookworm", number=12, date=1686355200),
    Release(codename="trixie", number=13, date=1754697600),
)
# Both of GRUB's kinds and the shim that firmware trusts, which Debian's own cloud images have too:
# grub-pc and grub-efi-amd64 exclude one another.
_UEFI_PACKAGES = ("grub-cloud-amd64",)
_CLOUD_PACKAGES = ("cloud-init",)
_NO_SOURCES = "mmdebstrap's default mirrors"
# The kernel for virtual machines: a quarter of the plain one's size, with NFS server, iSCSI
# target and KVM, without drivers for hardware. Named by Debian's architecture.
_ARCHES = {"x86_64": ("amd64", "linux-image-cloud-amd64")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A bootstrap, decided.

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
        """Return the source of the packages, for the manifest."""
        return "; ".join(self.sources) or _NO_SOURCES

    @property
    def archives(self) -> tuple[str, ...]:
        """Return the lines of ``sources``, or those that mmdebstrap takes where there are none."""
        return self.sources or _sources(self.release, _DEFAULT_MIRRORS, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """URLs of Debian's archive and of its security archive."""

    main: str
    security: str

    @classmethod
    def of(cls, main: str, security: str | None = None) -> Self:
        """Take mirrors; without one, the security archive is beside the main one, or the same."""
        return cls(main=main, security=security or security_archive(main) or main)


# Those of mmdebstrap(1), for a stable release.
_DEFAULT_MIRRORS = Mirrors.of(
    "http://deb.debian.org/debian", "http://security.debian.org/debian-security"
)


def find_release(name: str) -> Release | None:
    """Return the release of a name: ``debian-12``, ``debian12``, ``bookworm``, …; None without."""
    for release in RELEASES:
        if re.fullmatch(rf"(debian-?)?({release.number}|{release.codename})", name.lower()):
            return release
    return None


def has_cloud_init(spec: Spec) -> bool:
    """Tell if a spec's guest takes its name, users and network from a cloud."""
    return spec.properties.get("cloud-init") == "yes"


def recipe(spec: Spec, host: Mirrors | None) -> Recipe:
    """Decide what a spec with a ``bootstrap:`` base bootstraps.

    Args:
        spec: Its base, and its properties, which have been checked.
        host: The mirrors that this host's apt uses, when it is a Debian.

    Raises:
        SpecError: There is no such release.
    """
    release = find_release(spec.base.name)
    if release is None:
        known = ", ".join(f"debian-{r.number}" for r in RELEASES)
        message = f"no release named {spec.base.name!r} can be bootstrapped; known: {known}"
        raise SpecError([Problem(spec.path, spec.base.line, message)])
    arch, kernel = _ARCHES[spec.arch]
    wanted = words(spec.properties.get("packages", ""))
    # Of two kernels of one version, /vmlinuz leads to the cloud kernel whichever came first.
    kernels = () if any(name.startswith("linux-image-") for name in wanted) else (kernel,)
    loader = _UEFI_PACKAGES if has_uefi(spec.properties) else ()
    cloud = _CLOUD_PACKAGES if has_cloud_init(spec) else ()
    return Recipe(
        release=release,
        arch=arch,
        packages=(*kernels, *_PACKAGES, *loader, *cloud, *wanted),
        sources=_sources(release, _mirrors(spec.properties) or host, spec.properties),
    )


def recipe_again(spec: Spec, detail: str) -> Recipe:
    """Decide as an earlier build of the spec did, whose recipe had ``detail``.

    A manifest has it, which builders write: only what a recipe would say of some mirrors is taken.

    Raises:
        SpecError: There is no such release.
        BuildError: No recipe of this spec has that detail.
    """
    mirrors = None
    if detail != _NO_SOURCES:
        lines = [line.split(" ") for line in detail.split("; ")]
        urls = [line[-3] for line in lines if len(line) > 3]  # noqa: PLR2004 -- deb URL SUITE main
        if urls and all(value_problem("mirror", url) is None for url in urls):
            mirrors = Mirrors.of(urls[0], urls[-1])
    again = recipe(spec, mirrors)
    if again.detail != detail:
        raise BuildError(
            f"{spec.name} was bootstrapped from {shown(detail)}, and its spec does not say so"
        )
    return again


def host_mirrors(runner: Runner) -> Mirrors | None:
    """Return the mirrors this host's apt gets Debian from, as far as a spec could name them.

    None when it is not a Debian, or gets it from files, from a list of mirrors or with a password.
    """
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
    urls: dict[str, str] = {}
    for line in out.decode(errors="replace").splitlines():
        label, _, url = line.partition("\t")
        # The guest's apt gets them too, and the manifest is public.
        if value_problem("mirror", url) is None:
            urls.setdefault(label, url.rstrip("/"))
    if "Debian" not in urls:
        return None
    return Mirrors.of(urls["Debian"], urls.get("Debian-Security"))


def _mirrors(properties: Mapping[str, str]) -> Mirrors | None:
    urls = [url.rstrip("/") for url in properties.get("mirror", "").split()]
    if not urls:
        return None
    mirrors = Mirrors.of(*urls)
    moment = properties.get("snapshot")
    if moment is None:
        return mirrors
    return Mirrors(main=f"{mirrors.main}/{moment}", security=f"{mirrors.security}/{moment}")


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
