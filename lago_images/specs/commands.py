"""List the virt-builder commands a spec may use, and what each one reads from the host.

From ``virt-builder --long-options``, ``virt-customize --long-options`` and virt-customize(1) of
guestfs-tools 1.48; a test holds the tables against the installed programs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType


class Form(Enum):
    """The form of a command's argument."""

    NONE = auto()
    TEXT = auto()
    PAIR = auto()  # two parts with a colon between them
    PACKAGES = auto()  # a list with commas


class Reads(Enum):
    """The part of a command's argument that names something on the host."""

    NOTHING = auto()
    FILE = auto()  # all of it, a file
    FILE_TO = auto()  # what is before the first colon, a file
    TREE_TO = auto()  # what is before the first colon, a file or a folder
    SELECTOR = auto()  # FILE of [locked:]file:FILE
    USER_SELECTOR = auto()  # the same after USER:


@dataclass(frozen=True, slots=True)
class Command:
    """A command of virt-builder and virt-customize.

    Attributes:
        form: Of its argument.
        shape: Its argument as the manual writes it.
        reads: What of the argument is on the host.
        until: The last version of guestfs-tools that has it; empty where the newest does.
    """

    form: Form = Form.TEXT
    shape: str = ""
    reads: Reads = Reads.NOTHING
    until: str = ""


# They were removed in 1.55.2.
_SM = "1.55.1"


def _table() -> dict[str, Command]:
    none, pair = Form.NONE, Form.PAIR
    packages = Command(Form.PACKAGES, "PKG,PKG..")
    user = "USER:SELECTOR"
    return {
        "append-line": Command(pair, "FILE:LINE"),
        "chmod": Command(pair, "PERMISSIONS:FILE"),
        "copy": Command(pair, "SOURCE:DEST"),
        "copy-in": Command(pair, "LOCALPATH:REMOTEDIR", Reads.TREE_TO),
        "delete": Command(shape="PATH"),
        "edit": Command(pair, "FILE:EXPR"),
        "firstboot": Command(shape="SCRIPT", reads=Reads.FILE),
        "firstboot-command": Command(shape="CMD+ARGS"),
        "firstboot-install": packages,
        "hostname": Command(shape="HOSTNAME"),
        "install": packages,
        "link": Command(pair, "TARGET:LINK[:LINK..]"),
        "mkdir": Command(shape="DIR"),
        "move": Command(pair, "SOURCE:DEST"),
        "no-logfile": Command(none),
        "password": Command(pair, user, Reads.USER_SELECTOR),
        "password-crypto": Command(shape="md5|sha256|sha512"),
        "root-password": Command(shape="SELECTOR", reads=Reads.SELECTOR),
        "run": Command(shape="SCRIPT", reads=Reads.FILE),
        "run-command": Command(shape="CMD+ARGS"),
        "scrub": Command(shape="FILE"),
        "selinux-relabel": Command(none),
        "sm-attach": Command(shape="SELECTOR", reads=Reads.SELECTOR, until=_SM),
        "sm-credentials": Command(pair, user, Reads.USER_SELECTOR, until=_SM),
        "sm-register": Command(none, until=_SM),
        "sm-remove": Command(none, until=_SM),
        "sm-unregister": Command(none, until=_SM),
        "ssh-inject": Command(pair, user, Reads.USER_SELECTOR),
        "timezone": Command(shape="TIMEZONE"),
        "touch": Command(shape="FILE"),
        "truncate": Command(shape="FILE"),
        "truncate-recursive": Command(shape="PATH"),
        "uninstall": packages,
        "update": Command(none),
        "upload": Command(pair, "FILE:DEST", Reads.FILE_TO),
        "write": Command(pair, "FILE:CONTENT"),
    }


COMMANDS: Mapping[str, Command] = MappingProxyType(_table())

# Which parts of an argument are paths in the guest: libguestfs's calls take none that is relative.
_FIRST, _SECOND, _LATER, _ALL = slice(1), slice(1, 2), slice(1, None), slice(None)
GUEST_PATHS: Mapping[str, slice] = MappingProxyType(
    {
        "append-line": _FIRST,
        "chmod": _SECOND,
        "copy": _ALL,
        "copy-in": _SECOND,
        "delete": _ALL,
        "edit": _FIRST,
        "link": _LATER,
        "mkdir": _ALL,
        "move": _ALL,
        "scrub": _ALL,
        "touch": _ALL,
        "truncate": _ALL,
        "truncate-recursive": _ALL,
        "upload": _SECOND,
        "write": _FIRST,
    }
)

_RUN = "it belongs to one run of the program, not to an image"
_SOURCE = "where templates come from is a setting (template-sources in lago-images.toml)"
_SIGNED = "signatures of templates are checked as the settings say"
_MODE = "it makes the program do something else than customise an image"
_DISK = "which disk is customised is for lago-images to say"
_NETWORK = "the network is a setting (network in lago-images.toml)"

# Options of virt-builder and virt-customize that are no commands: each with why a spec has none.
OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "add": _DISK,
        "arch": "write the property #arch=…",
        "attach": "an attached disk is not part of the repository; use upload or copy-in",
        "attach-format": "there is no attach in a spec; use upload or copy-in",
        "cache": _RUN,
        "cache-all-templates": _MODE,
        "check-signature": _SIGNED,
        "check-signatures": _SIGNED,
        "color": _RUN,
        "colors": _RUN,
        "colour": _RUN,
        "colours": _RUN,
        "commands-from-file": "virt-builder allows no file of commands inside one; "
        "write the commands here",
        "connect": _DISK,
        "curl": _RUN,
        "debug-gc": _RUN,
        "delete-cache": _MODE,
        "domain": _DISK,
        "dry-run": _MODE,
        "dryrun": _MODE,
        "echo-keys": _RUN,
        "fingerprint": _SOURCE,
        "format": "published disks are qcow2",
        "get-kernel": _MODE,
        "gpg": _RUN,
        "help": _MODE,
        "key": "an encrypted disk cannot be a base",
        "keys-from-stdin": "an encrypted disk cannot be a base",
        "list": _MODE,
        "list-format": _MODE,
        "long": _MODE,
        "machine-readable": _MODE,
        "memsize": _RUN,
        "network": _NETWORK,
        "no-cache": _RUN,
        "no-check-signature": _SIGNED,
        "no-check-signatures": _SIGNED,
        "no-delete-on-failure": _RUN,
        "no-network": _NETWORK,
        "no-sync": _RUN,
        "no-warn-if-partition": _RUN,
        "notes": "write the property #notes=…",
        "output": _DISK,
        "print-cache": _MODE,
        "quiet": _RUN,
        "size": "write the property #size=…, such as #size=6G",
        "smp": _RUN,
        "source": _SOURCE,
        "verbose": _RUN,
        "version": "write the property #version=…",
        "wrap": _RUN,
    }
)

# Commands that newer guestfs-tools have: since which version, and what does the same in 1.48.
NEWER: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "chown": ("1.52", "use run-command chown …"),
        "inject-blnsvr": ("1.54", "it is for Windows guests only"),
        "inject-qemu-ga": ("1.52", "use install qemu-guest-agent"),
        "inject-virtio-win": ("1.52", "it is for Windows guests only"),
        "no-selinux-relabel": (
            "1.52",
            "leave it out: 1.48 relabels only where selinux-relabel stands",
        ),
        "selinux-relabel-at-boot": ("1.56", "use touch /.autorelabel"),
        "selinux-relabel-exclude": ("1.56", "use selinux-relabel"),
        "tar-in": ("1.52", "use copy-in, or upload and run-command tar"),
    }
)

# What these give depends on what the guest's own sources of packages have that day, or may.
FETCHING = frozenset(("install", "run", "run-command", "update"))

PASSWORD_CRYPTO = frozenset(("md5", "sha256", "sha512"))

_PASSWORD = ("password:", "file:", "random", "disabled", "disable", "locked", "lock")
# The selectors of each command that has some: virt-builder(1), USERS AND PASSWORDS, SSH KEYS,
# SUBSCRIPTION-MANAGER, and mlcustomize password.ml. What ends in a colon goes on.
SELECTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "password": _PASSWORD,
        "root-password": _PASSWORD,
        "ssh-inject": ("string:", "file:"),
        "sm-attach": ("auto", "pool:", "file:"),
        "sm-credentials": ("password:", "file:"),
    }
)
