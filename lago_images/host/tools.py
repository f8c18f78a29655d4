"""Name the programs this project calls, and the Debian packages they come in.

And how a user who is not root gets root's rights over files of their own.
"""

from dataclasses import dataclass

# As root in a user namespace of one's own, with mounts of one's own: mmdebstrap's own unshare
# mode cannot enter a folder that only its user may read, which work directories are.
AS_ROOT = (
    "unshare",
    "--map-root-user",
    "--map-auto",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Tool names a program, the Debian package that has it, and what it is needed for.

    Attributes:
        without: What is the case where an optional one is missing; empty for others.
        host: The architecture of the hosts that need it; empty for all.
    """

    program: str
    package: str
    purpose: str
    without: str = ""
    host: str = ""


TOOLS = (
    Tool(program="virt-builder", package="guestfs-tools", purpose="libguestfs: bases"),
    Tool(program="virt-sysprep", package="guestfs-tools", purpose="customising images"),
    Tool(program="virt-index-validate", package="guestfs-tools", purpose="repo verify"),
    Tool(program="mmdebstrap", package="mmdebstrap", purpose="bootstrap: bases"),
    Tool(program="sfdisk", package="fdisk", purpose="bootstrap: bases"),
    Tool(program="mke2fs", package="e2fsprogs", purpose="bootstrap: bases"),
    Tool(program="dumpe2fs", package="e2fsprogs", purpose="bootstrap: bases"),
    Tool(program="debugfs", package="e2fsprogs", purpose="bootstrap: bases"),
    Tool(program="mkfs.vfat", package="dosfstools", purpose="bootstrap: bases"),
    Tool(program="mcopy", package="mtools", purpose="bootstrap: bases"),
    Tool(program="grub-mkimage", package="grub-common", purpose="bootstrap: bases", host="x86_64"),
    Tool(program="qemu-img", package="qemu-utils", purpose="disk images"),
    # Images of another architecture than the host's need another emulator, which their boot test
    # names.
    Tool(
        program="qemu-system-x86_64",
        package="qemu-system-x86",
        purpose="boot tests",
        host="x86_64",
    ),
    Tool(
        program="qemu-system-aarch64",
        package="qemu-system-arm",
        purpose="boot tests",
        host="aarch64",
    ),
    Tool(
        program="7zz",
        package="7zip",
        purpose="compressing disks",
        without="disks are compressed by liblzma, which takes up to twice the processor time",
    ),
    Tool(
        program="ssh",
        package="openssh-client",
        purpose="boot tests",
        without="a key that a spec injects is judged by its file in the guest, and by no login",
    ),
    Tool(program="gpg", package="gnupg", purpose="signing"),
    Tool(program="gpgconf", package="gnupg", purpose="signing"),
    Tool(program="gpgv", package="gpgv", purpose="simple: bases with a signed list"),
    Tool(program="git", package="git", purpose="reading the specs' history"),
)
# Without these, commands run in the appliance.
NAMESPACE_TOOLS = (
    Tool(program="bwrap", package="bubblewrap", purpose="commands in namespaces"),
    Tool(program="slirp4netns", package="slirp4netns", purpose="their network"),
    Tool(program="ip", package="iproute2", purpose="their network"),
    Tool(program="nsenter", package="util-linux", purpose="commands in namespaces"),
    Tool(program="unshare", package="util-linux", purpose="commands in namespaces"),
    Tool(program="prlimit", package="util-linux", purpose="commands in namespaces"),
    Tool(program="mke2fs", package="e2fsprogs", purpose="commands in namespaces"),
    Tool(program="debugfs", package="e2fsprogs", purpose="commands in namespaces"),
    Tool(program="perl", package="perl-base", purpose="edit in namespaces"),
    Tool(program="tar", package="tar", purpose="copy-in in namespaces"),
)
_PACKAGES = {tool.program: tool.package for tool in (*TOOLS, *NAMESPACE_TOOLS)}


def package_of(program: str) -> str | None:
    """Return the Debian package of a program; None for one that the project does not call."""
    return _PACKAGES.get(program)
