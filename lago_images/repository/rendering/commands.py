"""Shell commands that use an image, ready to paste. They quote what a spec's author chose."""

import re
import shlex
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.fields import line
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.specs.properties import firmwares

_EXAMPLE = "NAME"
# lago knows no architectures: a name without a version is an image of this one.
_PLAIN_ARCH = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Commands for one use.

    Attributes:
        title: The tool's name.
        about: A sentence before them.
        text: The lines to paste.
    """

    title: str
    about: str
    text: str


def of_image(release: Release, image: ReleasedImage, site: Site, key: PublicKey | None) -> list[
    Commands
]:  # fmt: skip
    """Return the commands that get one revision of one image."""
    name = release.name
    download = _download(f"{name}.qcow2.xz", image.public.disk, image.manifest.disk.sha256, site)
    unpack = f"xz --decompress {name}.qcow2.xz"
    also = [
        Commands(
            title=f"{form}, ready to use",
            about="Download the disk and check it; it is used as it is:",
            text=_download(f"{name}.{form}", image.public.also(form), file.sha256, site),
        )
        for form, file in sorted(image.also.items())
    ]
    return [
        virt_builder(site, key, name, release.arch),
        lago(site, name, version_name(release, image.manifest), release.arch),
        Commands(
            title="libvirt",
            about="Download the disk, check it, and start a machine with it:",
            text=_joined(download, unpack, _virt_install(image.manifest)),
        ),
        Commands(
            title="curl and sha256sum",
            about="Download the disk and check it:",
            text=_joined(download, unpack),
        ),
        *also,
    ]


def _joined(*commands: str) -> str:
    """Join commands so that none is run, by a shell they are pasted into, after one that failed."""
    return " &&\n".join(commands)


def _download(name: str, key: str, sha256: str, site: Site) -> str:
    return _joined(
        f"curl -fLO {site.base_url}/{key}", f"echo '{sha256}  {name}' | sha256sum --check"
    )


def _virt_install(manifest: Manifest) -> str:
    osinfo = line(manifest.properties.get("osinfo", ""))
    option = shlex.quote(osinfo) if osinfo else "detect=on,require=off"
    command = (
        f"virt-install --name {manifest.name} --memory 2048 --osinfo {option} \\\n"
        f'  --disk "path=$PWD/{manifest.name}.qcow2" --import --arch {manifest.arch}'
    )
    # libvirt starts an x86_64 machine with a BIOS, if nothing else is said.
    return f"{command} --boot uefi" if _firmwares(manifest) == {"uefi"} else command


def _firmwares(manifest: Manifest) -> set[str]:
    """Return what an image booted with; of one that was not booted, what its spec names."""
    booted = manifest.boot.firmware if manifest.boot else {}
    return set(booted or firmwares(manifest.properties))


def virt_builder(site: Site, key: PublicKey | None, name: str = "", arch: str = "") -> Commands:
    """Return the commands that build a disk from an image, or from a name to be filled in."""
    about = "This repository is not signed, so virt-builder must not check signatures:"
    if key is not None:
        about = "Import the key, and build a disk; virt-builder checks the fingerprint:"
    make = " \\\n  ".join([*source_call(site.base_url, key), disk_words(name or _EXAMPLE, arch)])
    return Commands(
        title="virt-builder", about=about, text=_joined(*key_import(site.base_url, key), make)
    )


def key_import(url: str, key: PublicKey | None) -> list[str]:
    """Return the command that imports the key of the repository at a URL; none without a key."""
    if key is None:
        return []
    # -f: without it curl hands the page of a 404 to gpg, and succeeds.
    return [f"curl -fsS {url}/{layout.key_file(key.fingerprint)} | gpg --import"]


def source_call(url: str, key: PublicKey | None) -> list[str]:
    """Return virt-builder's call that reads the index at a URL, an option a part."""
    if key is None:
        return [f"virt-builder --source {url}/{layout.INDEX} --no-check-signature"]
    index = layout.signed_index(key.fingerprint)
    return [f"virt-builder --source {url}/{index}", f"--fingerprint {key.fingerprint}"]


def disk_words(name: str, arch: str) -> str:
    """Return the words behind that call that make a disk of an image, for all architectures."""
    # virt-builder's default is the architecture of the machine that it runs on: a client's.
    of_arch = f" --arch {arch}" if arch else ""
    return f"{name}{of_arch} --format qcow2 -o {name}.qcow2"


def virt_builder_source(site: Site, key: PublicKey | None) -> Commands:
    """Return the commands that make the repository one of virt-builder's own sources."""
    name = re.sub(r"[^-A-Za-z0-9._]", "-", site.name)
    index = layout.signed_index(key.fingerprint) if key else layout.INDEX
    steps = ['mkdir -p "$sources"']
    source = [f"[{name}]", f"uri={site.base_url}/{index}"]
    if key:
        url = f"{site.base_url}/{layout.key_file(key.fingerprint)}"
        # Before the block that names it: a key file that is missing makes virt-builder fail for
        # every source of the user's.
        steps.append(f'curl -fsS -o "$sources/{name}.asc" {url}')
        source.append(f"gpgkey=file://$sources/{name}.asc")
    # END without quotes: the shell is to put in $sources. A published URL has no $ of its own.
    steps.append(f'cat >"$sources/{name}.conf" <<END')
    folder = "sources=${XDG_CONFIG_HOME:-$HOME/.config}/virt-builder/repos.d"
    text = _joined(*steps, "\n".join([*source, "END", "virt-builder --list"]))
    return Commands(
        title="virt-builder, for good",
        about="Or make it one of virt-builder's sources, for every call of yours:",
        text=f"{folder}\n{text}",
    )


def lago(site: Site, name: str = "", version: str = "", arch: str = "") -> Commands:
    """Return a ``LagoInitFile`` of one machine, and the command that starts from it.

    lago knows no architectures: an image of another than x86_64 is had by its version's name.
    """
    pinned = f"\n        template_version: {version}" if arch not in ("", _PLAIN_ARCH) else ""
    return Commands(
        title="lago",
        about="Describe a machine on it, and let lago download the template:",
        text=(
            "cat >LagoInitFile <<'END'\n"
            "domains:\n"
            "  vm0:\n"
            "    memory: 2048\n"
            "    nics:\n"
            "      - net: net0\n"
            "    disks:\n"
            f"      - template_name: {name or _EXAMPLE}{pinned}\n"
            "        type: template\n"
            "        name: root\n"
            "        dev: vda\n"
            "        format: qcow2\n"
            "nets:\n"
            "  net0:\n"
            "    type: nat\n"
            "    dhcp: {start: 100, end: 254}\n"
            "    management: true\n"
            "END\n"
            f"lago init --template-repo-path {site.base_url}/{layout.METADATA}"
        ),
    )
