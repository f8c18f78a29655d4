"""Shell commands that use an image, ready to paste. They quote what a spec's author chose."""

import re
import shlex
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.fields import line
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import PublicKey, Site

_EXAMPLE = "NAME"
# The default of virt-builder and lago.
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
    name, disk = release.name, image.public.disk
    osinfo = line(image.manifest.properties.get("osinfo", ""))
    option = shlex.quote(osinfo) if osinfo else "detect=on,require=off"
    download = (
        f"curl -fLO {site.base_url}/{disk}\n"
        f"echo '{image.manifest.disk.sha256}  {name}.qcow2.xz' | sha256sum --check\n"
        f"xz --decompress {name}.qcow2.xz"
    )
    machine = (
        f"virt-install --name {name} --memory 2048 --osinfo {option} \\\n"
        f"  --disk path=$PWD/{name}.qcow2 --import"
    )
    if release.arch != _PLAIN_ARCH:
        machine += f" --arch {release.arch}"
    also = [
        Commands(
            title=f"{form}, ready to use",
            about="Download the disk and check it; it is used as it is:",
            text=(
                f"curl -fLO {site.base_url}/{image.public.also(form)}\n"
                f"echo '{file.sha256}  {name}.{form}' | sha256sum --check"
            ),
        )
        for form, file in sorted(image.also.items())
    ]
    return [
        virt_builder(site, key, name, release.arch),
        lago(site, name, version_name(release, image.manifest), release.arch),
        Commands(
            title="libvirt",
            about="Download the disk, check it, and start a machine with it:",
            text=f"{download}\n{machine}",
        ),
        Commands(
            title="curl and sha256sum", about="Download the disk and check it:", text=download
        ),
        *also,
    ]


def virt_builder(site: Site, key: PublicKey | None, name: str = "", arch: str = "") -> Commands:
    """Return the commands that build a disk from an image, or from a name to be filled in."""
    name = name or _EXAMPLE
    other = f" --arch {arch}" if arch not in ("", _PLAIN_ARCH) else ""
    rest = f"{name}{other} --format qcow2 -o {name}.qcow2"
    if key is None:
        return Commands(
            title="virt-builder",
            about="This repository is not signed, so virt-builder must not check signatures:",
            text=f"virt-builder --source {site.base_url}/index --no-check-signature \\\n  {rest}",
        )
    return Commands(
        title="virt-builder",
        about="Import the key, and build a disk; virt-builder checks the fingerprint:",
        text=(
            f"curl -fsS {site.base_url}/{layout.key_file(key.fingerprint)} | gpg --import\n"
            f"virt-builder --source {site.base_url}/{layout.signed_index(key.fingerprint)} \\\n"
            f"  --fingerprint {key.fingerprint} \\\n"
            f"  {rest}"
        ),
    )


def virt_builder_source(site: Site, key: PublicKey | None) -> Commands:
    """Return the commands that make the repository one of virt-builder's own sources."""
    name = re.sub(r"[^-A-Za-z0-9._]", "-", site.name)
    index = layout.signed_index(key.fingerprint) if key else layout.INDEX
    lines = [
        "sources=${XDG_CONFIG_HOME:-$HOME/.config}/virt-builder/repos.d",
        'mkdir -p "$sources"',
    ]
    if key:
        url = f"{site.base_url}/{layout.key_file(key.fingerprint)}"
        # Before the block that names it: a key file that is missing makes virt-builder fail for
        # every source of the user's.
        lines.append(f'curl -fsS -o "$sources/{name}.asc" {url}')
    # END without quotes: the shell is to put in $sources. A published URL has no $ of its own.
    lines += [f'cat >"$sources/{name}.conf" <<END', f"[{name}]", f"uri={site.base_url}/{index}"]
    if key:
        lines.append(f"gpgkey=file://$sources/{name}.asc")
    about = "Or make it one of virt-builder's sources, for every call of yours"
    lines += ["END", "virt-builder --list"]
    return Commands(title="virt-builder, for good", about=f"{about}:", text="\n".join(lines))


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
