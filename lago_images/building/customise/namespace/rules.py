"""Decide which specs mean the same in namespaces as in the appliance.

Rather one spec too many for the appliance than one whose image differs: what the rules do not know
goes there, whole.
"""

import json
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from lago_images.settings import PREFIX, Settings
from lago_images.specs.model import BaseKind, Operation, Spec
from lago_images.specs.names import shown

AUTO, NAMESPACE, APPLIANCE = "auto", "namespace", "appliance"
VARIABLE = f"{PREFIX}ENGINE"
# What the Jenkinsfile found out of a change request: "true" where its commit is on our branch.
CHANGE_IS_OURS = f"{PREFIX}CHANGE_IS_OURS"

# What the agent does as virt-customize does.
COMMANDS = frozenset(
    (
        "append-line",
        "chmod",
        "copy",
        "copy-in",
        "delete",
        "edit",
        "hostname",
        "install",
        "link",
        "mkdir",
        "move",
        "no-logfile",
        "password",
        "password-crypto",
        "root-password",
        "run",
        "run-command",
        "scrub",
        "timezone",
        "touch",
        "truncate",
        "truncate-recursive",
        "uninstall",
        "update",
        "upload",
        "write",
    )
)
# What is below a layer is not asked: the shape of its disk decides.
_BASES = frozenset((BaseKind.BOOTSTRAP, BaseKind.LAYER))
# What asks the machine, its kernel or its disks, and may be answered otherwise in the appliance:
# without an error, so that trying would not tell.
_ASKS_MACHINE = re.compile(
    r"(?<![\w.-])("
    r"(?:u|pivot_)?mount(?:point)?|findmnt|losetup|blkid|ls(?:blk|mod|pci|usb|cpu|mem|scsi)|df"
    r"|(?:s|c)?fdisk|parted|(?:resize|tune)2fs|e2label|fstrim|fsck|swapon|swapoff|dmsetup|lvm"
    r"|(?:pv|vg|lv)\w+|mdadm|grub2?-[\w-]+|update-grub|grubby|lilo|extlinux|dracut|efibootmgr"
    r"|modprobe|insmod|rmmod|modinfo|sysctl|dmesg|uname|arch|nproc|hostnamectl|timedatectl"
    r"|localectl|systemd-detect-virt|virt-what|dmidecode|hwinfo|lshw|ip|ifconfig|route|ss|netstat"
    r"|nft|iptables\S*|ping|chattr|lsattr|attr|capsh|docker|podman|unshare|nsenter|chroot|bwrap"
    r"|reboot|strace|gdb|keyctl|ulimit|prlimit|nice|renice|chrt|taskset|mknod|dkms|stat|free|ps"
    r"|whoami|runlevel|telinit|sudo|getconf|update-initramfs|mkinitramfs|kmod|depmod|uptime|hostid"
    r"|vmstat|(?:io|mp)stat|top|pgrep|pidof|lsof|fuser|ls(?:ns|ipc|irq|locks)|ipcs|numactl"
    r"|lstopo|getenforce|sestatus|aa-status|hdparm|smartctl|ethtool|arp|systemd-nspawn"
    r"|os\.(?:uname|cpu_count|getloadavg|sched_getaffinity|sysconf|statvfs)"
    r"|platform\.(?:uname|release|version|platform|machine|processor)|POSIX::uname"
    r"|(?:from|import) platform|multiprocessing\.cpu_count|disk_usage"
    r")(?![\w-])"
    r"|(?<![\w.-])(?:/(?:boot|efi|sys|etc/mtab)(?![\w.-])"
    r"|/dev/(?!null|zero|full|random|urandom|stdin|stdout|stderr|fd/|tty|shm/|pts/)"
    r"|/proc(?![\w.-])(?!/self/fd))"
)
# Their scripts look at the machine, too.
MACHINE_PACKAGES = re.compile(
    r"grub.*|shim.*|lilo|extlinux|systemd-boot.*|dracut.*|mdadm|os-prober|flash-kernel|.*-dkms|dkms"
    r"|linux-image.*|initramfs-tools.*|intel-microcode|amd64-microcode|zfs.*|cryptsetup.*|multipath.*|fwupd.*|task-.*"
)
# Of the kernel, and where parts of the disk are mounted.
_PLACES = re.compile(r"/*(?:dev|proc|sys|boot|efi)(?:/|$)")


def why_not(spec: Spec, text_of: Callable[[str], str]) -> str:
    """Return why a spec's commands are for the appliance, or nothing.

    Args:
        spec: The spec.
        text_of: Returns the content of a host file of the spec's, as a script of ``run``.
    """
    if spec.base.kind not in _BASES:
        return f"its base is {spec.base.kind}:, not bootstrap: or layer:"
    if spec.arch != platform.machine():
        return f"it is for {spec.arch}, and this host is {platform.machine()}"
    uploaded: dict[str, str] = {}
    for operation in spec.operations:
        if operation.name == "upload":
            local, _, remote = operation.argument.partition(":")
            uploaded[PurePosixPath(remote).name] = text_of(local)
        if why := _why_not(operation, text_of, uploaded):
            return f"line {operation.line}: {why}"
    return ""


def _why_not(
    operation: Operation, text_of: Callable[[str], str], uploaded: Mapping[str, str]
) -> str:
    name, argument = operation.name, operation.argument
    if name not in COMMANDS:
        return f"{name} is the appliance's"
    if name in {"run", "run-command"}:
        return _why_not_run(name, text_of(argument) if name == "run" else argument, uploaded)
    if name in {"install", "uninstall"}:
        packages = (each for each in argument.split(",") if MACHINE_PACKAGES.fullmatch(each))
        return next((f"{each} looks at the machine" for each in packages), "")
    if name in {"password", "root-password"}:
        return _password(argument if name == "root-password" else argument.partition(":")[2])
    if any(_PLACES.match(part) for part in argument.split(":")):
        return f"{name} is told of a path of the machine's"
    return ""


def _why_not_run(name: str, text: str, uploaded: Mapping[str, str]) -> str:
    """Judge what a command runs: its own text, and scripts that it names and that were uploaded."""
    called = (script for file, script in uploaded.items() if file in text)
    scripts = (script for script in called if script.startswith("#!"))
    found = (match for each in (text, *scripts) if (match := _ASKS_MACHINE.search(each)))
    match = next(found, None)
    return f"{name} uses {shown(match[0])}, which looks at the machine" if match else ""


def _password(selector: str) -> str:
    kinds = selector.split(":")
    while kinds[:1] in (["lock"], ["locked"]):
        kinds = kinds[1:]
    if kinds in ([], ["disabled"], ["disable"]) or kinds[0] == "password":
        return ""
    return f"the password selector {kinds[0]} is the appliance's"


def is_strangers(environ: Mapping[str, str]) -> bool:
    """Tell whether a run of CI is for a pull request from a fork, or may be.

    Facts of GitHub's and Jenkins's (GITHUB_EVENT_PATH; CHANGE_FORK and CHANGE_ID of the branch
    sources' plugin). That nothing names a fork is no evidence in Jenkins: our Jenkinsfile looks
    where the commit is from.
    """
    if environ.get("CHANGE_FORK"):
        return True
    if environ.get("CHANGE_ID"):
        return environ.get(CHANGE_IS_OURS) != "true"
    if not environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
        return False
    try:
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
        source = event["pull_request"]["head"]["repo"]["full_name"]
    except (KeyError, OSError, TypeError, ValueError):
        return True
    return bool(source != environ.get("GITHUB_REPOSITORY"))


def may_keep(environ: Mapping[str, str]) -> bool:
    """Tell whether a run may use what other builds have kept of guests, and keep it for them.

    Strangers do not choose what others are given. In Jenkins no change request does, whoever's
    it was found to be.
    """
    return not (environ.get("CHANGE_ID") or is_strangers(environ))


def is_allowed(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Tell whether a run may use namespaces; a stranger's only where the variable says so.

    The settings' file is the stranger's own.
    """
    chosen = settings.origins.get("engine") == VARIABLE and settings.engine == NAMESPACE
    return chosen or not is_strangers(environ)
