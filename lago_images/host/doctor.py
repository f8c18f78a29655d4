"""Check what this machine lacks for the work, and say what to do about each."""

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lago_images.console import human_size
from lago_images.errors import CommandError, ToolMissingError
from lago_images.host import kvm, space
from lago_images.host.firmware import UEFI
from lago_images.host.process import Runner, search_path
from lago_images.host.tools import AS_ROOT, NAMESPACE_TOOLS, TOOLS
from lago_images.host.workdir import default_scratch

# One image of a few GiB, while it is worked on and when it is finished.
LEAST_SPACE = 4 * space.GIB
GOOD_SPACE = 12 * space.GIB
_ROOT = Path("/")


class State(StrEnum):
    """The verdict of a check; with ``warning`` something is wrong, but the work can be done."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at: what was found, and what to do where that is not well."""

    name: str
    state: State
    found: str
    do: str = ""


def host_checks(
    runner: Runner, environ: Mapping[str, str], *, require_kvm: bool, root: Path = _ROOT
) -> Iterator[Check]:
    """Check the machine itself: its tools, KVM, kernel, name spaces and disk space.

    Args:
        runner: What programs are started with.
        environ: For the folder of the work directories.
        require_kvm: Whether the settings refuse to build without KVM.
        root: The root of the file system that is looked at.
    """
    yield _tools(environ)
    yield from _optional_tools(environ)
    yield _kvm(kvm.detect(runner), require_kvm=require_kvm)
    yield _kernel(root)
    yield from _firmware(root)
    if os.geteuid() != 0:
        yield _user_namespaces(runner)
    yield _namespaces(runner, environ)
    yield from _passt(root)
    yield _space(default_scratch(environ))


def _tools(environ: Mapping[str, str]) -> Check:
    path = search_path(environ)
    needed = [tool for tool in TOOLS if not tool.without and tool.host in {"", platform.machine()}]
    missing = [tool for tool in needed if shutil.which(tool.program, path=path) is None]
    if not missing:
        return Check(name="tools", state=State.OK, found=f"all {len(needed)} are installed")
    packages = " ".join(sorted({tool.package for tool in missing}))
    return Check(
        name="tools",
        state=State.MISSING,
        found=", ".join(f"{tool.program} ({tool.purpose})" for tool in missing),
        do=f"as root: apt-get install {packages}",
    )


def _optional_tools(environ: Mapping[str, str]) -> Iterator[Check]:
    for tool in TOOLS:
        if tool.without and shutil.which(tool.program, path=search_path(environ)) is None:
            yield Check(
                name=tool.program,
                state=State.WARNING,
                found=f"not installed: {tool.without}",
                do=f"as root: apt-get install {tool.package}",
            )


def _kvm(accel: kvm.Acceleration, *, require_kvm: bool) -> Check:
    if accel.kvm:
        return Check(name="kvm", state=State.OK, found="it runs a guest")
    state = State.MISSING if require_kvm else State.WARNING
    slow = "; guests will run by emulation without KVM (TCG), which takes several times as long"
    slow = "" if require_kvm else slow
    return Check(name="kvm", state=state, found=accel.why.rstrip(".") + slow, do=kvm.hint(accel))


def _kernel(root: Path) -> Check:
    """Check the host's kernel, which libguestfs needs to read and Ubuntu hides from users."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if any(os.access(kernel, os.R_OK) for kernel in kernels):
        return Check(name="kernel", state=State.OK, found="libguestfs can read one in /boot")
    if kernels:
        return Check(
            name="kernel",
            state=State.MISSING,
            found="libguestfs can read none of /boot/vmlinuz-*",
            do="as root: chmod 0644 /boot/vmlinuz-* (and again after each kernel update)",
        )
    return Check(
        name="kernel",
        state=State.MISSING,
        found="there is no /boot/vmlinuz-*, which libguestfs's appliance is made of",
        do=f"as root: apt-get install linux-image-generic (Debian: {_debian_kernel()})",
    )


def _debian_kernel() -> str:
    return "linux-image-arm64" if platform.machine() == "aarch64" else "linux-image-amd64"


def _firmware(root: Path) -> Iterator[Check]:
    """Tell if boot tests have UEFI firmware; another architecture's is named when it is needed."""
    firmware = UEFI.get(platform.machine())
    if firmware is None:
        return
    missing = firmware.missing(root)
    if not missing:
        yield Check(name="firmware", state=State.OK, found=f"{firmware.title} is installed")
        return
    names = " and ".join(file.name for file in missing)
    yield Check(
        name="firmware",
        state=State.MISSING,
        found=f"boot tests under UEFI need {names} in {missing[0].parent}",
        do=f"as root: apt-get install {firmware.package}",
    )


def _user_namespaces(runner: Runner) -> Check:
    try:
        runner.run([*AS_ROOT, "true"], timeout=10)
    except (CommandError, ToolMissingError) as error:
        reason = error.last_words if isinstance(error, CommandError) else error.message
        return Check(
            name="user namespaces",
            state=State.MISSING,
            found=f"bootstrap: bases cannot be unpacked: {reason}",
            do="as root: apt-get install uidmap; usermod --add-subuids 100000-165535 "
            "--add-subgids 100000-165535 USER; on Ubuntu 24.04 also "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, as ci/setup-host does",
        )
    return Check(name="user namespaces", state=State.OK, found="this user may make them")


# As building/customise/namespace asks for, in a few words; containers may hide parts of /proc, and
# then get no new one.
_SANDBOX = (
    *("unshare", "--user", "--map-root-user", "--net", "--"),
    *("bwrap", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"),
)


def _namespaces(runner: Runner, environ: Mapping[str, str]) -> Check:
    """Tell whether commands can run in namespaces; without, they run in the appliance."""
    path = search_path(environ)
    missing = [tool for tool in NAMESPACE_TOOLS if shutil.which(tool.program, path=path) is None]
    slow = "commands run in libguestfs's appliance, which takes several times as long"
    if missing:
        packages = " ".join(sorted({tool.package for tool in missing}))
        return Check(
            name="namespaces",
            state=State.WARNING,
            found=f"{', '.join(tool.program for tool in missing)} missing: {slow}",
            do=f"as root: apt-get install {packages}",
        )
    try:
        runner.run(_SANDBOX, timeout=10)
    except (CommandError, ToolMissingError) as error:
        said = error.last_words if isinstance(error, CommandError) else error.message
        return Check(
            name="namespaces",
            state=State.WARNING,
            found=f"{said}: {slow}",
            do="allow user namespaces (in a container: an own seccomp profile), "
            'or set engine = "appliance"',
        )
    return Check(name="namespaces", state=State.OK, found="commands can run in them")


def _passt(root: Path) -> Iterator[Check]:
    """Check Ubuntu 24.04's profile of passt, which keeps libguestfs' guests from the network."""
    profile = root / "etc/apparmor.d/usr.bin.passt"
    disabled = root / "etc/apparmor.d/disable/usr.bin.passt"
    if not profile.exists() or not _is_ubuntu(root):
        return
    if disabled.is_symlink() or disabled.exists():
        yield Check(name="passt", state=State.OK, found="its AppArmor profile is turned off")
        return
    yield Check(
        name="passt",
        state=State.WARNING,
        found="its AppArmor profile keeps commands in images from the network",
        do="as root: ln -s /etc/apparmor.d/usr.bin.passt /etc/apparmor.d/disable/ && "
        "apparmor_parser -R /etc/apparmor.d/usr.bin.passt",
    )


def _is_ubuntu(root: Path) -> bool:
    try:
        release = (root / "etc/os-release").read_text("utf-8")
    except OSError:
        return False
    return re.search(r"^ID=\"?ubuntu\"?$", release, re.MULTILINE) is not None


def _space(scratch: Path) -> Check:
    there = space.free(scratch)
    state = State.OK
    if there < GOOD_SPACE:
        state = State.WARNING if there >= LEAST_SPACE else State.MISSING
    return Check(
        name="space",
        state=state,
        found=f"{human_size(there)} are free in {scratch}",
        do="" if state is State.OK else "free some, or set TMPDIR to a larger file system",
    )
