"""Prove that programs of another architecture run here, as a bootstrap's own programs have to.

The kernel starts qemu-user for them where ``binfmt_misc`` tells it to. That an entry is there
proves little: its emulator may be gone, and without the flag ``F`` is looked for in the folder that
the program was given as its root. So one is run: a program of three instructions, which ends at
once, in a root of its own.
"""

import platform
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import CommandError, HostError
from lago_images.host.process import Runner

_NAME = "end"
# Seconds for three instructions: an emulator has to be read first, from a slow disk perhaps.
_LIMIT = 60.0
# Of chroot(1): the program cannot be started, or there is none.
_NOT_STARTED = (126, 127)
_ADDRESS = 0x400000
_HEADERS = 64 + 56
# Of 64 KiB, the largest page that a kernel for aarch64 may have.
_PAGE = 0x10000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """A program that ends with 0: its architecture's number in ELF (elf.h, EM_…), and its code."""

    number: int
    code: bytes

    def elf(self) -> bytes:
        """Return it as a static executable, loaded whole (elf(5))."""
        size = _HEADERS + len(self.code)
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        entry = _ADDRESS + _HEADERS
        header = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(ident, 2, self.number, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0),
        )
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
        return header + segment + self.code


# The number of exit is the kernel's: asm-generic/unistd.h and asm/unistd_64.h.
_PROGRAMS: Mapping[str, _Program] = {
    # mov x0, #0; mov x8, #93; svc #0
    "aarch64": _Program(number=183, code=bytes.fromhex("000080d2 a80b80d2 010000d4")),
    # xor edi, edi; mov eax, 60; syscall
    "x86_64": _Program(number=62, code=bytes.fromhex("31ff b83c000000 0f05")),
}


def demand(arch: str, workdir: Path, runner: Runner, *, prefix: Sequence[str] = ()) -> None:
    """Demand that this host runs programs of an architecture, whatever their root.

    Args:
        arch: The architecture, as ``uname -m`` spells it: aarch64 or x86_64.
        workdir: Where a program is written, and removed again.
        runner: Starts it.
        prefix: A command's, which gives it root's rights.

    Raises:
        HostError: They do not run; says what to install.
        CommandError: They cannot be tried, for want of root's rights or another reason.
    """
    if arch == platform.machine():
        return
    with tempfile.TemporaryDirectory(prefix="foreign-", dir=workdir) as name:
        program = Path(name) / _NAME
        program.write_bytes(_PROGRAMS[arch].elf())
        program.chmod(0o755)
        argv = [*prefix, "chroot", name, f"/{_NAME}"]
        try:
            runner.run(argv, timeout=_LIMIT, doing=f"running a program of {arch}")
        except CommandError as error:
            if error.returncode not in _NOT_STARTED:
                raise
            # Not what chroot says: of a format that the kernel does not know it takes a program for
            # a shell's script, and misses that shell.
            raise HostError(
                f"programs of {arch} do not run on this host, which is {platform.machine()}",
                hint="as root: apt-get install qemu-user-static binfmt-support, and where "
                "/proc/sys/fs/binfmt_misc is empty: mount -t binfmt_misc binfmt_misc "
                "/proc/sys/fs/binfmt_misc && update-binfmts --enable; or build it on a host "
                f"that is {arch}",
            ) from error
