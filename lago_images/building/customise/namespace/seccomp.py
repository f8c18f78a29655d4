"""Make the filter of system calls for programs of a spec, with the host's libseccomp.

What it takes away are the kernel's widest and least used surfaces: none that a package's scripts
need in a chroot. What a program misses fails, and the spec then goes to the appliance.
"""

import ctypes
import ctypes.util
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lago_images.errors import ToolMissingError

# <seccomp.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _GREATER, _MASKED = 4, 6, 7
_NO_SUCH_CALL = -1

# Each with what the caller sees.
_DENIED = {
    errno.EPERM: (
        # Keyrings are not of a namespace.
        *("add_key", "keyctl", "request_key"),
        *("bpf", "perf_event_open", "userfaultfd"),
        *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
        *("mount", "umount2", "pivot_root", "setns", "open_by_handle_at"),
        *("fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr"),
        *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
        *("swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "reboot", "syslog"),
        *("iopl", "ioperm", "fanotify_init", "lookup_dcookie", "nfsservctl", "vhangup"),
        *("clock_settime", "clock_adjtime", "settimeofday", "adjtimex", "memfd_secret"),
    ),
    # glibc and others then take the older call, which can be looked into.
    errno.ENOSYS: (
        *("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "modify_ldt"),
        *("personality", "uselib", "ustat", "sysfs", "_sysctl"),
    ),
}
# <linux/sched.h>: time, mount, cgroup, UTS, IPC, user, PID and network namespaces.
_NEW_NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000)
_NEW_NAMESPACES_BY_NETWORK = 0x40000000
# <linux/socket.h>: local, IPv4, IPv6 and netlink; none of the kernel's rarer protocols.
_FAMILIES = frozenset((1, 2, 10, 16))
_NETLINK, _LAST_FAMILY = 16, 16
# <linux/netlink.h>: routes, and audit, whose absence shadow's programs take for an error.
_NETLINKS = frozenset((0, 9))
_LAST_NETLINK = 22
# <linux/fs.h>, <asm/ioctls.h>: attributes that a copy of the tree would lose; typing for others.
_IOCTLS = (0x40086602, 0x401C5820, 0x5412, 0x541C)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def write_filter(path: Path) -> None:
    """Write the filter as the program that the kernel takes (``bwrap --seccomp``).

    Other architectures' calls, such as those of i386 programs, end the program.

    Raises:
        ToolMissingError: There is no libseccomp, or it cannot make the filter.
    """
    library = _library()
    with _context(library) as context, path.open("wb") as file:
        for action, name, comparisons in _rules():
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Those that this libseccomp or architecture does not have cannot be called by name.
            if number == _NO_SUCH_CALL:
                continue
            array = (_Comparison * len(comparisons))(*comparisons)
            result = library.seccomp_rule_add_array(
                context, _ERRNO | action, number, len(comparisons), array
            )
            if result:
                raise ToolMissingError(f"libseccomp cannot make a rule for {name}: {-result}")
        if library.seccomp_export_bpf(context, file.fileno()):
            raise ToolMissingError("libseccomp cannot write its filter")


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise ToolMissingError(
            "libseccomp is not installed", hint="apt-get install libseccomp2"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.restype = None
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    return library


@contextmanager
def _context(library: ctypes.CDLL) -> Iterator[int]:
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise ToolMissingError("libseccomp cannot begin a filter")
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _rules() -> Iterator[tuple[int, str, tuple[_Comparison, ...]]]:
    for action, names in _DENIED.items():
        for name in names:
            yield action, name, ()
    for call in ("clone", "unshare"):
        for flag in (*_NEW_NAMESPACES, _NEW_NAMESPACES_BY_NETWORK):
            yield errno.EPERM, call, (_Comparison(0, _MASKED, flag, flag),)
    for family in range(_LAST_FAMILY + 1):
        if family not in _FAMILIES:
            yield errno.EAFNOSUPPORT, "socket", (_Comparison(0, _EQUAL, family),)
    yield errno.EAFNOSUPPORT, "socket", (_Comparison(0, _GREATER, _LAST_FAMILY),)
    netlink = _Comparison(0, _EQUAL, _NETLINK)
    for protocol in range(_LAST_NETLINK + 1):
        if protocol not in _NETLINKS:
            comparison = _Comparison(2, _EQUAL, protocol)
            yield errno.EPROTONOSUPPORT, "socket", (netlink, comparison)
    above = _Comparison(2, _GREATER, _LAST_NETLINK)
    yield errno.EPROTONOSUPPORT, "socket", (netlink, above)
    for request in _IOCTLS:
        yield errno.EPERM, "ioctl", (_Comparison(1, _MASKED, 0xFFFFFFFF, request),)
