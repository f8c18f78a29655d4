"""What a serial console shows of troubles, and what it does not."""

import pytest

from lago_images.building.boot import console_signs

CALM = """\
\x1b[2J\x1b[01;01HSeaBIOS (version 1.16.2-debian-1.16.2-1)\r
Booting from Hard Disk...\r
[    0.000000] Linux version 6.1.0-42-cloud-amd64 (debian-kernel@lists.debian.org)\r
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=UUID=1234 ro console=ttyS0,115200n8\r
[    0.010000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r
[    1.213000] EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.\r
[    1.500000] systemd[1]: Reached target emergency.target is not what this says.\r
[    2.000000] blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ)\r
[    2.100000] Buffer I/O error on dev sr0, logical block 0, async page read\r
[   20.464886] EXT4-fs (vda1): resizing filesystem from 1572608 to 3145472 blocks\r
[    3.000000] GPT:Alternate GPT header not at the end of the disk.\r
[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mReport the last kernel BUG: to its makers\x1b[0m.\r
debian login: my motd says: Out of memory? Oops: call 555\r
"""
# The name of the sign, and a line as the kernel, systemd, GRUB or firmware writes it.
LINES = [
    ("kernel panic", "[    2.61] Kernel panic - not syncing: VFS: Unable to mount root fs on vda1"),
    ("kernel panic", "[    3.01] Kernel panic - not syncing: Attempted to kill init! exitcode=0x1"),
    ("no root file system", "(initramfs) "),
    ("no root file system", "dracut:/# "),
    ("no root file system", "Entering emergency mode. Exit the shell to continue."),
    ("emergency mode", "You are in emergency mode. After logging in, type journalctl -xb to view"),
    ("emergency mode", "Give root password for maintenance"),
    ("Secure Boot", 'BdsDxe: failed to start Boot0002 "UEFI Misc Device" from Pci: Access Denied'),
    ("Secure Boot", "Verification failed: (0x1A) Security Violation"),
    ("Secure Boot", "error: bad shim signature."),
    ("no boot loader", "\x1b[0mgrub rescue> "),
    ("no boot loader", "grub> "),
    ("no boot loader", "No bootable device."),
    ("no boot loader", "Boot failed: not a bootable disk"),
    ("no boot loader", ">>Start PXE over IPv4."),
    ("no boot loader", "BdsDxe: No bootable option or device was found."),
    ("systemd does not go on", "[    4.20] systemd[1]: Freezing execution."),
    ("kernel oops", "[    5.00] BUG: unable to handle page fault for address: ffffffffc0000000"),
    ("kernel oops", "[    5.00] Oops: 0002 [#1] PREEMPT SMP NOPTI"),
    ("kernel oops", "[    5.00] general protection fault, probably for non-canonical address"),
    ("kernel oops", "[    5.00] kernel BUG at fs/ext4/inode.c:2729!"),
    ("kernel oops", "[    5.00] Internal error: Oops: 96000004 [#1] SMP"),
    ("kernel bug", "[    5.00] BUG: scheduling while atomic: swapper/0/0/0x00000100"),
    ("kernel bug", "[ OK ] Started one.[    5.00] BUG: Bad page state in process sh pfn:1"),
    ("out of memory", "[    9.00] Out of memory: Killed process 512 (java) total-vm:4123456kB"),
    ("out of memory", "[    9.00] java invoked oom-killer: gfp_mask=0x140dca, order=0"),
    ("out of memory", "[    9.00] Memory cgroup out of memory: Killed process 9 (java)"),
    (
        "file system error",
        "[    3.10] EXT4-fs error (device vda1): ext4_lookup:1855: inode #2: bad",
    ),
    (
        "file system error",
        "[    3.10] EXT4-fs (vda3): warning: mounting fs with errors, running e2fsck is adv",
    ),
    ("file system error", "[    3.10] EXT4-fs (vda3): Remounting filesystem read-only"),
    ("file system error", "ROOT contains a file system with errors, check forced."),
    ("systemd does not go on", "[    4.20] systemd[1]: Caught <SEGV>, dumped core as pid 91."),
    ("file system error", "/dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY."),
    ("file system error", "[    3.10] XFS (vda1): Metadata corruption detected at xfs_agi_verify"),
    ("file system error", "[    3.10] BTRFS error (device vda5): bad tree block start"),
    ("disk error", "[    3.10] blk_update_request: I/O error, dev vda, sector 2048 op 0x0:(READ)"),
    ("disk error", "[    3.10] I/O error, dev vda, sector 8 op 0x1:(WRITE) flags 0x800"),
    ("disk error", "[    3.10] Buffer I/O error on dev vda1, logical block 0, async page read"),
    (
        "generator of systemd's",
        "[    2.2] systemd[1]: /lib/systemd/system-generators/broken failed with exit status 1.",
    ),
    (
        "generator of systemd's",
        "[    2.2] (sd-exec-[214]: /etc/systemd/system-generators/x terminated by signal ABRT.",
    ),
]


def test_a_usual_boot_shows_nothing():
    assert console_signs.faults(CALM) == ()
    assert console_signs.end(CALM) is None


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        (CALM, True),
        ("[  OK  ] Reached target basic.target", True),
        ("debian login: ", True),
        ("", False),
        ("BdsDxe: starting Boot0001\r\nWelcome to GRUB!\r\n", False),
        ("Booting from Hard Disk...\r\n[ sda1 ]\r\n", False),
    ],
)
def test_whether_anything_but_firmware_and_a_boot_loader_writes(text, writes):
    assert console_signs.is_kernels(text) is writes


def test_a_generator_that_wants_vsock_fails_on_machines_without():
    failed = (
        "[   20.0] (sd-exec-[225]: /usr/lib/systemd/system-generators/{} failed with exit status 1."
    )
    assert console_signs.faults(failed.format("systemd-ssh-generator")) == ()
    assert console_signs.faults(failed.format("systemd-ssh-generators")) != ()


@pytest.mark.parametrize(("name", "line"), LINES, ids=ascii)
def test_trouble_is_named_with_the_line_that_shows_it(name, line):
    [fault] = console_signs.faults(f"{CALM}{line}\r\n{CALM}{line}\r\n")
    assert fault.sign.name == name
    assert fault.line in line
    assert fault.sign.advice


@pytest.mark.parametrize(
    "line",
    [
        "[   26.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]",
        "[   26.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[   26.1] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 34s!",
        "[  242.1] INFO: task systemd:1 blocked for more than 120 seconds.",
    ],
)
def test_an_emulated_processor_that_gets_no_time_is_no_fault_of_the_guest(line):
    [fault] = console_signs.faults(line)
    assert fault.sign.name == "kernel lockup"
    assert console_signs.faults(line, is_emulated=True) == ()


@pytest.mark.parametrize(
    ("line", "starved"),
    [
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", True),
        ("Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug", True),
        ("Kernel panic - not syncing: No working init found.", False),
    ],
)
def test_starvation_is_told_apart(line, starved):
    assert console_signs.is_starved(f"[    0.1] {line}") is starved


@pytest.mark.parametrize(("name", "line"), LINES, ids=ascii)
def test_only_what_a_guest_does_not_get_over_ends_its_boot(name, line):
    ends = {
        "kernel panic",
        "no root file system",
        "emergency mode",
        "Secure Boot",
        "no boot loader",
        "systemd does not go on",
    }
    fault = console_signs.end(CALM + line)
    assert (fault is not None) == (name in ends)


def test_a_line_without_an_end_is_looked_at_in_part():
    text = "] BUG: " * 200_000
    [fault] = console_signs.faults(text)
    assert len(fault.line) <= 1000


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Booting from Hard Disk...", "no boot loader"),
        ("GRUB loading.", "no boot loader"),
        (
            "[\x1b[0;31m*\x1b[0m   ] A start job is running for x.service (1min / no limit)",
            "a unit hangs",
        ),
        (
            "\x1bM\r\x1b[K[\x1b[0m*\x1b[0m  ] Job x.service/start running (2min / no limit)",
            "a unit hangs",
        ),
        ("[ ***  ] (1 of 2) Job wait.service/start running (41s / no limit)", "a unit hangs"),
        ("debian login:", None),
        ("[   29.083820] AES CTR mode by8 optimization enabled", None),
    ],
)
def test_the_last_line_of_a_guest_that_hangs_tells_why(line, name):
    fault = console_signs.stuck(f"{CALM}{line}")
    assert (fault and fault.sign.name) == name
    assert console_signs.stuck(f"{line}\r\nsomething else\r\n") is None
    assert console_signs.stuck("") is None
