"""Do in a guest's root what libguestfs's calls behind virt-customize's commands do.

A part of the agent, which runs by itself. All of this is called with the guest's tree as the root.
"""

import ctypes
import os
import re
import stat

from lago_images.building.customise.namespace.guest_root import (
    CommandFailedError,
    UnsupportedError,
    exists,
    is_plain,
    write,
)

# What /etc/fstab calls a file system of the guest's disk (fstab(5)).
_OF_DISK = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
_RANDOM_SEEDS = (
    "/var/lib/random-seed",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
    "/etc/random-seed",
)
_GLOB_BRACE = 1 << 10
_GLOB_NOMATCH = 3


class Glob(ctypes.Structure):
    """glob(3)'s result."""

    _fields_ = (
        ("count", ctypes.c_size_t),
        ("paths", ctypes.POINTER(ctypes.c_char_p)),
        ("offset", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("functions", ctypes.c_void_p * 5),
    )


def mounted_from_disk(fstab: str) -> list[str]:
    """Return where /etc/fstab mounts what is on the guest's disk, but for its root."""
    with open(fstab, encoding="utf-8") as file:
        fields = [line.split() for line in file if not line.lstrip().startswith("#")]
    mounted = {each[1] for each in fields if len(each) > 1 and each[0].startswith(_OF_DISK)}
    return sorted(path for path in mounted - {"/"} if path.startswith("/"))


def package_versions(status: str, pattern: "re.Pattern[str]") -> list[str]:
    """Return the name, version and state of each package of dpkg's whose name matches."""
    if not is_plain(status):
        return []
    with open(status, encoding="utf-8", errors="replace") as file:
        stanzas = [stanza.split("\n") for stanza in file.read().split("\n\n")]
    versions = []
    for stanza in stanzas:
        fields = dict(line.split(": ", 1) for line in stanza if ": " in line)
        if pattern.fullmatch(fields.get("Package", "")):
            wanted = (fields.get(name, "") for name in ("Package", "Version", "Status"))
            versions.append(" ".join(wanted))
    return versions


def glob_expand(pattern: str) -> list[str]:
    """Return the paths that match, as hexadecimal digits: they need not be UTF-8."""
    library, result = ctypes.CDLL(None), Glob()
    code = library.glob(os.fsencode(pattern), _GLOB_BRACE, None, ctypes.byref(result))
    if code == _GLOB_NOMATCH:
        return []
    if code:
        raise CommandFailedError(f"glob failed: {pattern}")
    return [bytes(result.paths[number]).hex() for number in range(result.count)]


def append_line(path: str, line: bytes) -> None:
    if not exists(path):
        write(path, line + b"\n")
        return
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CommandFailedError(f"append_line: {path} is not a file")
    with open(path, "rb") as file:
        first = file.read(8192)
        newline = next((end for end in (b"\r\n", b"\n", b"\r") if end in first), b"\n")
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(newline), 0))
        last = file.read(len(newline)) if size else newline
    before = b"" if last == newline else newline
    write(path, before + line + newline, os.O_APPEND)


def mkdir_p(path: str) -> None:
    try:
        os.makedirs(path, 0o777, exist_ok=True)
    except FileExistsError as error:
        raise CommandFailedError(f"{path}: a path element was not a directory") from error
    if not stat.S_ISDIR(os.lstat(path.rstrip("/")).st_mode):
        raise CommandFailedError(f"{path}: a path element was not a directory")


def touch(path: str) -> None:
    if os.path.lexists(path) and not is_plain(path):
        raise CommandFailedError(f"{path}: touch can only be used on a regular files")
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o666)
    os.utime(target)
    os.close(target)


def truncate(path: str) -> None:
    target = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    os.ftruncate(target, 0)
    os.close(target)


def truncate_recursive(path: str) -> None:
    if not is_plain(path.rstrip("/"), stat.S_ISDIR):
        raise UnsupportedError(f"{path} is no folder")
    for folder, _, names in os.walk(path):
        for name in names:
            if is_plain(f"{folder}/{name}"):
                truncate(f"{folder}/{name}")


def upload(source: int, target: str, mode: int) -> None:
    options = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY
    with os.fdopen(os.open(target, options, 0o666), "wb") as file:
        while piece := os.read(source, 2**20):
            file.write(piece)
    os.chmod(target, mode)
    os.chown(target, 0, 0)


def replace(path: str, new: str, data: bytes) -> None:
    """Put a file of the same owner, mode and attributes in the place of another."""
    status = os.lstat(path)
    target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(target, "wb") as file:
        file.write(data)
    os.chown(new, status.st_uid, status.st_gid)
    os.chmod(new, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(path):
        os.setxattr(new, name, os.getxattr(path, name))
    os.rename(new, path)


def set_hostname(name: str) -> None:
    """Write /etc/hostname, and the new name in the place of the old one in /etc/hosts."""
    old = None
    if is_plain("/etc/hostname"):
        with open("/etc/hostname", encoding="utf-8") as file:
            old = file.read().split("\n")[0]
    write("/etc/hostname", f"{name}\n".encode())
    if not is_plain("/etc/hosts"):
        return
    with open("/etc/hosts", encoding="utf-8") as file:
        text = file.read()
    lines = [host_line(line, old, name) for line in text.split("\n")]
    if "\n".join(lines) != text:
        replace("/etc/hosts", "/etc/hosts.augnew", "\n".join(lines).encode())


def host_line(line: str, old: str | None, new: str) -> str:
    if not line.strip() or line.lstrip().startswith("#"):
        return line
    if not re.fullmatch(r"[0-9a-fA-F:.]+([ \t]+[A-Za-z0-9._-]+)+[ \t]*", line):
        raise UnsupportedError("the guest's /etc/hosts has a line of an unusual form")
    first, *rest = re.split(r"([ \t]+)", line)
    return first + "".join(host_name(part, old, new) for part in rest)


def host_name(part: str, old: str | None, new: str) -> str:
    short = new.partition(".")[0]
    if old is not None and part == old:
        return new
    if old is not None and part == old.partition(".")[0] and part:
        return short
    if part == "unassigned-hostname":
        return short
    if part == "unassigned-hostname.unassigned-domain" and "." in new:
        return new
    return part


def random_seed() -> None:
    """Write to the files with a seed that there are, or make Debian's where its folder is."""
    present = [path for path in _RANDOM_SEEDS if is_plain(path)]
    for path in present:
        size = min(max(os.lstat(path).st_size, 512), 8192)
        truncate(path)
        write(path, os.urandom(size), os.O_APPEND)
    new = "/var/lib/urandom/random-seed"
    if not present and is_plain("/var/lib/urandom", stat.S_ISDIR):
        write(new, os.urandom(512))
        os.chown(new, 0, 0)
        os.chmod(new, 0o600)
