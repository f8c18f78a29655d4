"""Find in the text of a guest's serial console what is wrong with it, and name the cause."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lago_images.console import clean

# The kernel's own lines begin so. systemd writes to the same console, also in front of them.
_KERNEL = r"(?:^|\]\s+)(?:watchdog: )?"
_ENDS_OF_LINES = re.compile(r"[\r\n]+")
# What only a running kernel, or systemd and a getty on it, write: with quiet there are no times.
_RUNNING = re.compile(r"^\[ *\d+\.\d{6}\]|^\[ *(?:OK|FAILED) *\]|systemd\[1\]:|\blogin:")
# Characters of a line that are looked at: a guest may write without an end.
_LONGEST = 1000
# The kernel's own words for a timer that is late (Linux, arch/x86/kernel/apic/io_apic.c, waits for
# some ticks of it). With soft lockups they happen under emulation on a busy machine, with the same
# disk that boots the next time.
_LATE_TIMER = r"IO-APIC \+ timer doesn't work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A kind of trouble, and how a console shows it.

    Attributes:
        name: Of the cause, in a few words.
        pattern: Of a line that shows it.
        advice: What to look at next.
        is_end: Whether the guest does not go on by itself after it.
        is_starvation: Whether an emulated processor that gets no time shows it, too.
    """

    name: str
    pattern: re.Pattern[str]
    advice: str
    is_end: bool = False
    is_starvation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A sign that was found, with the line that shows it."""

    sign: Sign
    line: str

    def __str__(self) -> str:
        return f"{self.sign.name}: {self.line}"


def _end(name: str, pattern: str, advice: str) -> Sign:
    return Sign(name=name, pattern=re.compile(pattern), advice=advice, is_end=True)


def _kernel(name: str, pattern: str, advice: str, *, is_starvation: bool = False) -> Sign:
    return Sign(
        name=name,
        pattern=re.compile(f"{_KERNEL}(?:{pattern})"),
        advice=advice,
        is_starvation=is_starvation,
    )


SIGNS = (
    _end(
        "kernel panic",
        r"Kernel panic - not syncing.*",
        "the lines before it say why: without a root file system or an init, look at the boot "
        "menu, the initrd and what the spec removed",
    ),
    _end(
        "no root file system",
        r"\(initramfs\)|dracut:/#|Entering emergency mode\. Exit the shell",
        "the initrd did not find it: look at root= in the boot menu, the file systems' UUIDs, and "
        "whether the initrd has the driver of virtio disks",
    ),
    _end(
        "emergency mode",
        r"You are in (?:emergency|rescue) mode.*|Entering emergency mode.*"
        r"|Give root password for maintenance.*",
        "a mount or a check of a file system failed: /etc/fstab names what is there, and nofail "
        "what may be missing",
    ),
    _end(
        "Secure Boot",
        r"BdsDxe: failed to start .*Access Denied.*|.*Security Violation.*|bad shim signature.*",
        "the boot loader or kernel has no signature that the firmware trusts: install the "
        "distribution's signed shim, GRUB and kernel",
    ),
    _end(
        "no boot loader",
        r"^grub rescue>|^grub>|Entering rescue mode\.\.\.|No bootable device.*"
        r"|Boot failed: not a bootable disk.*|BdsDxe: No bootable option or device was found.*"
        # UEFI looks on the network, for minutes, when no disk has anything.
        r"|UEFI Interactive Shell.*|>>Start (?:PXE|HTTP Boot) over .*",
        "the firmware or GRUB found nothing to start: under uefi look at the EFI system partition, "
        "else at the boot sector, and at firmware= in the spec",
    ),
    _end(
        "systemd does not go on",
        r"systemd\[1\]: Freezing execution.*|systemd\[1\]: Failed to start up manager.*"
        r"|systemd\[1\]: Caught <\w+>.*",
        "the lines before it say why",
    ),
    _kernel(
        "kernel oops",
        r"Oops: .*|BUG: unable to handle .*|BUG: kernel NULL .*|general protection fault.*"
        r"|kernel BUG at .*|Internal error: .*|Unable to handle kernel .*|Unable to handle page .*",
        "a fault of the kernel or of one of its modules: take another kernel",
    ),
    _kernel(
        "kernel lockup",
        r"BUG: soft lockup.*|.*hard LOCKUP.*|BUG: workqueue lockup.*"
        r"|(?:rcu: )?INFO: rcu_\S+ .*stall.*|INFO: task .* blocked for more than .*",
        "a processor or a task of the guest did not get on: its kernel, or this host's load",
        is_starvation=True,
    ),
    _kernel(
        "kernel bug",
        r"BUG: (?!soft lockup|workqueue lockup).*",
        "a fault of the kernel or of one of its modules: take another kernel",
    ),
    _kernel(
        "out of memory",
        r"(?:Memory cgroup out|Out) of memory: .*|\S+ invoked oom-killer.*|oom-kill:.*",
        "what is started at boot wants more than the 2 GiB of the boot test's machine",
    ),
    _kernel(
        "file system error",
        r"EXT[234]-fs error .*|EXT4-fs \(\S+\): .*(?:corrupt|[Ee]rror count|fs with errors).*"
        r"|EXT[234]-fs \(\S+\): Remounting filesystem read-only.*"
        r"|XFS \(\S+\): .*(?:[Cc]orruption|Internal error|metadata I/O error).*"
        r"|BTRFS (?:error|critical) .*|.*UNEXPECTED INCONSISTENCY.*"
        # fsck's, of the initrd or of systemd.
        r"|.*contains a file system with errors, check forced.*",
        "the disk's file system is damaged: check it (fsck, virt-rescue) and build its base anew",
    ),
    _kernel(
        "disk error",
        # Floppies and CD drives that are not there give these, too.
        r"(?:blk_update_request: |critical \w+ error, |Buffer )?(?:I/O error[, ]|medium error[, ])"
        r".*dev (?!fd|sr).*",
        "the guest could not read or write its disk: the image is cut off, or this host's disk is "
        "full",
    ),
    Sign(
        name="generator of systemd's",
        # systemd-ssh-generator of systemd 257, Debian 13's, fails on every machine without vsock.
        pattern=re.compile(
            r"\S*/system-generators/(?!systemd-ssh-generator )\S+ (?:failed with|terminated by) .*"
        ),
        advice="its units are missing in every machine: run it by hand in the guest, and look at "
        "what it reads, such as /etc/fstab",
    ),
)

# What the last line of a guest that hangs tells.
_STUCK = (
    _end(
        "no boot loader",
        r"^Booting from Hard Disk\.\.\.$|^GRUB loading|^Welcome to GRUB|^BdsDxe: starting Boot\w+",
        "the firmware has started what is in the boot sector or the EFI system partition, and "
        "that did not start a kernel: the boot loader is missing or damaged",
    ),
    _end(
        "no console",
        r"^Booting a command list$|^Loading .*\.\.\.$",
        "the kernel was started and writes nothing here: give it console=ttyS0 (aarch64: ttyAMA0)",
    ),
    _end(
        "a unit hangs",
        r"^\[[\s*]+\] (?:\(\d+ of \d+\) )?(?:A start )?[Jj]ob .*",
        "the unit is not done, and the guest agent waits for it",
    ),
)


def faults(text: str, *, is_emulated: bool = False) -> tuple[Fault, ...]:
    """Return what a console shows of troubles, each kind once, by its first line.

    Args:
        text: The console's, with whatever control sequences the guest wrote.
        is_emulated: Whether the processor was emulated: one that gets no time is no fault of the
            guest's then.
    """
    found: dict[str, Fault] = {}
    for fault in _faults(text):
        if not (is_emulated and fault.sign.is_starvation):
            found.setdefault(fault.sign.name, fault)
    return tuple(found.values())


def is_kernels(text: str) -> bool:
    """Tell if a guest's kernel, or what it started, writes to the console: firmware always does."""
    return any(_RUNNING.search(line) for line in lines(text))


def end(text: str) -> Fault | None:
    """Return what a guest wrote before it would wait for a person for ever, if it did."""
    return next((fault for fault in _faults(text) if fault.sign.is_end), None)


def stuck(text: str) -> Fault | None:
    """Return what a guest that does not answer is at, if its last line tells."""
    last = list(lines(text))[-1:]
    found = (Fault(sign=sign, line=line) for line in last for sign in _STUCK)
    return next((fault for fault in found if fault.sign.pattern.search(fault.line)), None)


def is_starved(text: str) -> bool:
    """Tell if a guest's kernel wrote that its processor or timer did not get on."""
    return re.search(rf"BUG: soft lockup|{_LATE_TIMER}", text) is not None


def lines(text: str) -> Iterator[str]:
    """Yield a console's lines without control sequences; empty ones are left out."""
    for line in _ENDS_OF_LINES.split(text):
        if shown := clean(line[:_LONGEST]).strip():
            yield shown


def _faults(text: str) -> Iterator[Fault]:
    """Yield a fault for each line that shows one: the first of the table."""
    for line in lines(text):
        for sign in SIGNS:
            if match := sign.pattern.search(line):
                yield Fault(sign=sign, line=match[0].lstrip("] "))
                break
