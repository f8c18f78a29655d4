"""Start the agent in a sandbox: bubblewrap, inside a user namespace of sub-ids.

bubblewrap and not ``unshare``: its set-up of mounts, /dev and /proc is widely used, it sets
no_new_privs and the filter as the last steps before it starts a program, and it leaves nothing
behind. It would map one id only, so the user namespace is ours.
"""

import shlex
import shutil
from pathlib import Path

from lago_images.building.customise.namespace.guest_archives import FETCHED, GIVEN
from lago_images.building.customise.namespace.user_namespace import (
    MOST_PROCESSES,
    UnavailableError,
)
from lago_images.errors import CommandError
from lago_images.host.process import Runner
from lago_images.host.tools import NAMESPACE_TOOLS

# Who builds may have another, in a folder that nobody else may enter.
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
# What package scripts need of root's rights: over their own files and processes. No device, mount,
# network interface, kernel or other process is in reach of these.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
# bubblewrap follows a path through folders that only who builds may enter; the kernel does not,
# from the folder it is in. The last line goes on with bubblewrap.
_MOUNTS = """\
set -e
mount -t tmpfs -o mode=755,size=64k none /mnt
mkdir /mnt/tree /mnt/inputs /mnt/agent /mnt/given /mnt/fetched
: >/mnt/answer
for each in tree inputs agent given fetched answer; do
  mount --no-canonicalize --bind "$each" "/mnt/$each"
done
exec 6<filter
exec """
# Of one process, in bytes; libguestfs's appliance has this for all of them.
_MEMORY = 2 * 2**30
_SHARED_MEMORY = 64 * 2**20
_SWAPS = Path("/proc/swaps")


def python() -> str:
    """Return a Python that everybody may start; raises ``UnavailableError`` without one."""
    for path in _PYTHONS:
        if Path(path).exists():
            return path
    raise UnavailableError("there is no python3 in /usr", hint="apt-get install python3-minimal")


def try_out(runner: Runner) -> None:
    """Try whether bubblewrap can do here what it is asked for.

    A container's runtime may hide parts of /proc, and the kernel then gives nobody a new one.

    Args:
        runner: Its programs run as the namespace's root.

    Raises:
        UnavailableError: It cannot; has its words.
    """
    argv = [
        "bwrap",
        *_NAMESPACES,
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]
    try:
        runner.capture(argv, doing="trying a sandbox")
    except CommandError as error:
        raise UnavailableError(f"this host gives no sandbox: {error.last_words}") from error


def command(largest_file: int, esp: str) -> list[str]:
    """Return the command that runs the agent; to be started in the folder with its files.

    There must be ``tree``, the guest's root; ``inputs``, the host files of the spec; ``agent``,
    with the agent and its ``plan.json``; ``given`` and ``fetched``, for packages; ``answer``, a
    file; and ``filter``. Nothing else of the host but /usr is in reach.

    Args:
        largest_file: Bytes that a file of the guest may have.
        esp: Where the guest mounts its EFI system partition, which is not in reach; empty for none.
    """
    bwrap = shlex.join([*_limits(largest_file), *_bwrap(esp)])
    return ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _MOUNTS + bwrap]


def _limits(largest_file: int) -> list[str]:
    return [
        "prlimit",
        f"--nproc={MOST_PROCESSES}",
        f"--data={_MEMORY}",
        f"--fsize={largest_file}",
        "--core=0",
        "--nofile=1024:4096",
        "--",
    ]


def _bwrap(esp: str) -> list[str]:
    # fmt: off
    return [
        "bwrap",
        *_NAMESPACES,
        "--die-with-parent", "--new-session",
        "--seccomp", "6",
        "--cap-drop", "ALL", *(word for each in _CAPABILITIES for word in ("--cap-add", each)),
        # As the appliance calls itself.
        "--hostname", "(none)",
        "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin",
        "--setenv", "LC_ALL", "C.UTF-8",
        "--size", str(_SHARED_MEMORY), "--tmpfs", "/",
        "--ro-bind", "/usr", "/usr", *_merged(),
        "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache",
        "--ro-bind-try", "/etc/alternatives", "/etc/alternatives",
        "--ro-bind", "/mnt/inputs", "/inputs", "--ro-bind", "/mnt/agent", "/agent",
        "--ro-bind", "/mnt/given", GIVEN, "--bind", "/mnt/fetched", FETCHED,
        "--bind", "/mnt/answer", "/answer",
        "--proc", "/proc", "--dev", "/dev",
        "--bind", "/mnt/tree", "/sysroot",
        "--proc", "/sysroot/proc", *_devices("/sysroot/dev"),
        *_empty("/sysroot/sys"), *(_empty(f"/sysroot{esp}") if esp else ()),
        # The host's: a guest's initrd would look for that swap.
        *(["--ro-bind", "/dev/null", "/sysroot/proc/swaps"] if _SWAPS.exists() else ()),
        "--remount-ro", "/",
        "--chdir", "/",
        python(), "-I", "-S", "/agent", "/agent/plan.json",
    ]
    # fmt: on


def _devices(at: str) -> list[str]:
    shared = ["--perms", "1777", "--size", str(_SHARED_MEMORY), "--tmpfs", f"{at}/shm"]
    return ["--dev", at, *shared, "--remount-ro", at]


def _empty(at: str) -> list[str]:
    return ["--size", "4096", "--tmpfs", at, "--remount-ro", at]


def _merged() -> list[str]:
    """Return the options for the folders that are links into /usr on this host, or are not."""
    options = []
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", f"usr/{name}", f"/{name}"]
        elif path.is_dir():
            options += ["--ro-bind", f"/{name}", f"/{name}"]
    return options


def missing_programs(path: str, *, network: bool) -> list[str]:
    """Return the programs of this engine that are not installed."""
    names = [tool.program for tool in NAMESPACE_TOOLS if network or tool.program != "slirp4netns"]
    return [name for name in names if shutil.which(name, path=path) is None]
