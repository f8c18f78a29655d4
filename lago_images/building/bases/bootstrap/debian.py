"""Decide what is bootstrapped: Debian's and Ubuntu's releases, a guest's packages, mirrors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
class Mirrors:
    """URLs of a distribution's archive and of its security archive."""

    main: str
    security: str

    @classmethod
    def of(cls, main: str, security: str | None = None) -> Self:
        """Take mirrors; without one, the security archive is beside the main one, or the same."""
        return cls(main=main, security=security or security_archive(main) or main)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What the releases of a distribution have in common.

    Attributes:
        name: Of the boot menu, and in lower case of the EFI folder where its signed GRUB looks.
        components: Of its archive, with blanks between.
        keyring: Where its keyring package puts its archive's keys; on a host of another
            distribution apt does not look there by itself.
        kernels: By architecture: how the distribution spells it, and the kernel for machines.
        packages: What a guest needs of it that has another name in others.
        loaders: By architecture: GRUB of every kind that its machines start by, and the shim that
            firmware trusts.
        archive: URLs of its archive and of its security archive; None for mmdebstrap's own.
        answers: By architecture: what a package's questions are answered with, as
            debconf-set-selections(1) reads it.
    """

    name: str
    components: str
    keyring: Path
    kernels: Mapping[str, tuple[str, str]]
    packages: tuple[str, ...]
    loaders: Mapping[str, tuple[str, ...]]
    archive: Mirrors | None = None
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release: its version, and when it was released, in seconds since the epoch."""

    distribution: Distribution
    codename: str
    number: str
    date: int

    @property
    def title(self) -> str:
        return f"{self.distribution.name} {self.number} ({self.codename})"


_DEBIAN = Distribution(
    name="Debian",
    components="main",
    keyring=Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    # The kernel for virtual machines: a quarter of the plain one's size, with NFS server, iSCSI
    # target and KVM, without drivers for hardware.
    kernels={
        "x86_64": ("amd64", "linux-image-cloud-amd64"),
        "aarch64": ("arm64", "linux-image-cloud-arm64"),
    },
    packages=("isc-dhcp-client",),
    # Debian's own cloud images have them too: grub-pc and grub-efi-amd64 exclude one another.
    loaders={
        "x86_64": ("grub-cloud-amd64",),
        "aarch64": ("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed"),
    },
    # Where firmware looks that remembers nothing, updates renew the boot loader, too; what it
    # remembers is of one machine, and not of the image.
    answers={
        "aarch64": (
            "grub-efi-arm64 grub2/force_efi_extra_removable boolean true",
            "grub-efi-arm64 grub2/update_nvram boolean false",
        )
    },
)
_UBUNTU = Distribution(
    name="Ubuntu",
    # ifupdown and openresolv are in universe.
    components="main universe",
    keyring=Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    kernels={"x86_64": ("amd64", "linux-image-virtual")},
    # Ubuntu's kernels only recommend what makes their initrd.
    packages=("dhcpcd-base", "initramfs-tools"),
    # As Ubuntu's own cloud images have them.
    loaders={"x86_64": ("grub-pc", "grub-efi-amd64-signed", "shim-signed")},
    archive=Mirrors(
        main="http://archive.ubuntu.com/ubuntu", security="http://security.ubuntu.com/ubuntu"
    ),
)
RELEASES = (
    Release(distribution=_DEBIAN, codename="bullseye", number="11", date=1628899200),
    Release(distribution=_DEBIAN, codename="bookworm", number="12", date=1686355200),
    Release(distribution=_DEBIAN, codename="trixie", number="13", date=1754697600),
    Release(distribution=_UBUNTU, codename="noble", number="24.04", date=1714003200),
    Release(distribution=_UBUNTU, codename="resolute", number="26.04", date=1776902400),
)
# In the configuration that cloud-init writes for ifupdown, routes are added by net-tools' route,
# and name servers are for a resolvconf: without those both are left out, without an error.
_CLOUD_PACKAGES = ("cloud-init", "net-tools", "openresolv")
_NO_SOURCES = "mmdebstrap's default mirrors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A bootstrap, decided.

    Attributes:
        arch: As the distribution spells it.
        packages: To install besides the essential ones.
        sources: Lines for apt's sources.list; empty for mmdebstrap's own mirrors.
        answers: To questions of packages, a line each.
    """

    release: Release
    arch: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    answers: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """Return the source of the packages, for the manifest."""
        return "; ".join(self.sources) or _NO_SOURCES

    @property
    def archives(self) -> tuple[str, ...]:
        """Return the lines of ``sources``, or those that mmdebstrap takes where there are none."""
        return self.sources or _sources(self.release, _DEFAULT_MIRRORS, {})


# Those of mmdebstrap(1), for a stable release.
_DEFAULT_MIRRORS = Mirrors.of(
    "http://deb.debian.org/debian", "http://security.debian.org/debian-security"
)


def find_release(name: str) -> Release | None:
    """Return the release of a name: ``debian-12``, ``debian12``, ``bookworm``, …; None without."""
    for release in RELEASES:
        distribution, number = release.distribution.name.lower(), re.escape(release.number)
        if re.fullmatch(rf"({distribution}-?)?({number}|{release.codename})", name.lower()):
            return release
    return None


def has_cloud_init(spec: Spec) -> bool:
    """Tell if a spec's guest takes its name, users and network from a cloud."""
    return spec.properties.get("cloud-init") == "yes"


def recipe(spec: Spec, host: Mirrors | None) -> Recipe:
    """Decide what a spec with a ``bootstrap:`` base bootstraps.

    Args:
        spec: Its base, and its properties, which have been checked.
        host: The mirrors of Debian that this host's apt uses, when it is one.

    Raises:
        SpecError: There is no such release.
    """
    release = find_release(spec.base.name)
    if release is None:
        known = ", ".join(f"{r.distribution.name.lower()}-{r.number}" for r in RELEASES)
        message = f"no release named {spec.base.name!r} can be bootstrapped; known: {known}"
        raise SpecError([Problem(spec.path, spec.base.line, message)])
    distribution = release.distribution
    arch, kernel = distribution.kernels[spec.arch]
    wanted = words(spec.properties.get("packages", ""))
    # Of two kernels of one version, /vmlinuz leads to the cloud kernel whichever came first.
    kernels = () if any(name.startswith("linux-image-") for name in wanted) else (kernel,)
    loader = distribution.loaders[spec.arch] if has_uefi(spec.properties) else ()
    cloud = _CLOUD_PACKAGES if has_cloud_init(spec) else ()
    # The host's are Debian's.
    mirrors = _mirrors(spec.properties) or (host if distribution is _DEBIAN else None)
    return Recipe(
        release=release,
        arch=arch,
        packages=(*kernels, *_PACKAGES, *distribution.packages, *loader, *cloud, *wanted),
        sources=_sources(release, mirrors, spec.properties),
        answers=distribution.answers.get(spec.arch, ()),
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
        # deb [OPTION] URL SUITE COMPONENT…
        urls = [word for word in detail.split() if "://" in word]
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
    mirrors = mirrors or release.distribution.archive
    if mirrors is None:
        return ()
    # A snapshot's Release files have expired by their nature; they are still signed.
    option = "[check-valid-until=no] " if "snapshot" in properties else ""
    main, name, components = mirrors.main, release.codename, release.distribution.components
    return (
        f"deb {option}{main} {name} {components}",
        f"deb {option}{main} {name}-updates {components}",
        f"deb {option}{mirrors.security} {name}-security {components}",
    )
