"""The boot test, with the real QEMU: boot sectors that fail in all ways, and a real Debian."""

import hashlib
import itertools
import re
import shutil
import socket
import time

import pytest

from lago_images.building.boot.boot_test import Bench, Questions, Subject, boot_test
from lago_images.building.boot.spec_tests import OwnTests
from lago_images.building.qcow2 import standalone
from lago_images.errors import BootError, ToolMissingError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.specs.logins import Logins
from lago_images.specs.model import GuestTest, Operation
from tests.support.guests import acceleration
from tests.support.images import (
    add_first_boot,
    authorize,
    read_ext4,
    write_ext4,
    write_guest,
)
from tests.support.small_filesystem import run_in_small_filesystem
from tests.support.specs import SpecsRepo
from tests.tools import need

pytestmark = [pytest.mark.real]
need("qemu-img", "qemu-system-x86_64")
TCG = Acceleration(name="tcg", why="these guests are too small for KVM")


def boot_sector(path, code):
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512))
    return path


def says(text):
    """Code that writes to the first serial port and then waits for ever."""
    # xor ax,ax; mov ds,ax; mov si,0x7c00+21; mov dx,0x3f8
    # next: lodsb; test al,al; jz stop; out dx,al; jmp next; stop: hlt; jmp stop
    code = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")
    return code + text.encode() + b"\0"


@pytest.fixture
def boot(tmp_path):
    (tmp_path / "work, dir").mkdir()

    def run(disk, fmt="raw", *, arch="x86_64", number=1, timeout=30, accel=TCG, clock=None, **more):
        subject = Subject(disk=disk, fmt=fmt, arch=arch, number=number)
        bench = Bench(
            accel=accel,
            timeout=timeout,
            workdir=tmp_path / "work, dir",
            runner=Runner(log=tmp_path / "log"),
            clock=clock or time.monotonic,
            console_log=tmp_path / "console, it.log",
        )
        return boot_test(subject, bench, Questions(**more))

    yield run
    assert list((tmp_path / "work, dir").iterdir()) == []


def test_a_kernel_panic_ends_the_boot_test_with_the_console_output(boot, tmp_path):
    panic = "starting\r\nKernel panic - not syncing: no init found\r\n"
    disk = boot_sector(tmp_path / "disk", says(panic))
    with pytest.raises(BootError, match="gave up: Kernel panic - not syncing: no init") as caught:
        boot(disk)
    assert any("starting" in line for line in caught.value.tail)
    assert "boot-test=no" in caught.value.hint
    assert "Kernel panic" in (tmp_path / "console, it.log").read_text()
    assert "qemu-system-x86_64" in (tmp_path / "log").read_text()


def test_an_image_without_an_agent_is_judged_by_its_console(boot, tmp_path):
    disk = boot_sector(tmp_path / "disk", says("cirros \x1b[1mlogin:\r\n"))
    booted = boot(disk, pattern="cirros login:", look_inside=True)
    assert booted.test.firmware == {"bios": booted.test.seconds}
    assert booted.packages is None
    with pytest.raises(BootError, match=r"console did not show 'other login:' within 4 s"):
        boot(disk, timeout=1, pattern="other login:")


@pytest.mark.parametrize("words", ["You are in emergency mode.", "dracut:/# ", "(initramfs) "])
def test_a_guest_that_waits_for_input_ends_the_boot_test(boot, tmp_path, words):
    disk = boot_sector(tmp_path / "disk", says(f"\x1b[0;1m{words}"))
    with pytest.raises(BootError, match="gave up"):
        boot(disk)


def test_an_unbootable_disk_fails_the_boot_test(boot, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2**20))
    with pytest.raises(BootError, match=r"not a bootable disk|No bootable device"):
        boot(disk)


def test_a_silent_guest_times_out(boot, tmp_path):
    disk = boot_sector(tmp_path / "disk", b"\xeb\xfe")
    with pytest.raises(BootError, match="within 4 s"):
        boot(disk, timeout=1)


def after(words, console):
    """A clock that stands still until the console has these words."""
    passed = itertools.count()
    now = 0

    def clock():
        nonlocal now
        if console.exists() and words in console.read_text():
            now = next(passed)
        return now

    return clock


@pytest.mark.parametrize(("words", "starts"), [("watchdog: BUG: soft lockup", 3), ("slow", 1)])
def test_a_guest_whose_emulated_processor_locks_up_is_started_again(boot, tmp_path, words, starts):
    disk = boot_sector(tmp_path / "disk", says(f"{words}\r\n"))
    seconds = after(words, tmp_path / "console, it.log")
    with pytest.raises(BootError, match="within 4 s") as caught:
        boot(disk, timeout=1, clock=seconds)
    assert any(words in line for line in caught.value.tail)
    assert (tmp_path / "log").read_text().count("+ qemu-system-x86_64") == starts


def test_a_guest_whose_emulated_timer_is_late_is_started_again(boot, tmp_path):
    words = "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug"
    disk = boot_sector(tmp_path / "disk", says(f"{words}\r\n"))
    with pytest.raises(BootError, match="gave up: Kernel panic"):
        boot(disk)
    assert (tmp_path / "log").read_text().count("+ qemu-system-x86_64") == 3


BOOTS = """
import sys, time
from pathlib import Path
from lago_images.building.boot.boot_test import Bench, Questions, Subject, boot_test
from lago_images.errors import BootError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner

work, outside = map(Path, sys.argv[1:])
try:
    bench = Bench(
        accel=Acceleration(name="tcg"),
        timeout=90,
        workdir=work,
        runner=Runner(log=outside / "log"),
        clock=time.monotonic,
        console_log=outside / "console.log",
    )
    boot_test(Subject(disk=outside / "disk", fmt="raw", arch="x86_64"), bench, Questions())
except BootError as error:
    print(error.message, error.hint, sep="\\n")
"""


def test_a_full_disk_is_reported_to_the_guest_and_fails_the_boot_test(tmp_path):
    # The BIOS writes 64 sectors (int 0x13, ah=0x43), and again behind them, until that fails:
    # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00
    # again: mov si,0x7c00+0x2c; mov ax,0x4300; int 0x13; jc failed; add dword [0x7c34],64
    # jmp again; failed: mov si,0x7c00+0x3c; and from mov dx,0x3f8 on as in says()
    code = bytes.fromhex(
        "31c08ed88ed0bc007c be2c7c b80043 cd13 7208 668306347c40 ebee be3c7c"
        "baf803 ac 84c0 7403 ee ebf8 f4 ebfd 10004000 00800000 0000000000000000"
    )
    disk = boot_sector(tmp_path / "disk", code + b"Kernel panic - not syncing: cannot write\0")
    with disk.open("r+b") as file:
        file.truncate(2**30)
    work = tmp_path / "work"
    message, hint = run_in_small_filesystem(work, "40m", BOOTS, str(tmp_path)).splitlines()
    told = "boot test: the guest gave up: Kernel panic - not syncing: cannot write; no room in "
    assert message.startswith(f"{told}{work}, where ")
    assert hint == "free some space, or set TMPDIR to a larger file system"


def test_a_guest_that_resets_ends_qemu(boot, tmp_path):
    # mov al, 0xfe; out 0x64, al: the keyboard controller resets the machine.
    disk = boot_sector(tmp_path / "disk", bytes.fromhex("b0fe e664 ebfe"))
    with pytest.raises(BootError, match="QEMU ended by itself"):
        boot(disk)


def test_qemus_error_output_is_shown(boot, tmp_path):
    disk = boot_sector(tmp_path / "disk", b"\xeb\xfe")
    # Of a number above 255 QEMU gets no address for its network card.
    with pytest.raises(BootError, match="QEMU ended") as caught:
        boot(disk, number=256)
    assert "mac" in "\n".join(caught.value.tail)


def test_an_architecture_without_an_emulator_is_refused(boot, tmp_path):
    disk = boot_sector(tmp_path / "disk", b"\xeb\xfe")
    with pytest.raises(BootError, match="no machine is known for riscv64"):
        boot(disk, arch="riscv64")


def test_a_missing_emulator_is_reported(tmp_path):
    disk = boot_sector(tmp_path / "disk", b"\xeb\xfe")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qemu-img").symlink_to(shutil.which("qemu-img"))
    bench = Bench(
        accel=TCG,
        timeout=1,
        workdir=tmp_path,
        runner=Runner(environ={"PATH": str(tmp_path / "bin")}),
        clock=time.monotonic,
        console_log=tmp_path / "console.log",
    )
    with pytest.raises(ToolMissingError) as caught:
        boot_test(Subject(disk=disk, fmt="raw", arch="s390x"), bench, Questions())
    assert "qemu-system-misc" in caught.value.hint


SPEC = """\
#base=simple:image-specs/files/panics.img
#arch=x86_64
#distro=debian
#firmware=bios
"""


def test_a_failed_boot_leaves_its_console_under_its_firmwares_name(tmp_path):
    specs = SpecsRepo.create(tmp_path / "specs")
    specs.write("image-specs/panics", SPEC)
    disk = specs.disk("image-specs/files/panics.img")
    boot_sector(disk, says("Kernel panic - not syncing: on purpose\r\n"))
    specs.commit()
    ran = specs.run("build", "--logs", str(tmp_path / "logs"))
    assert ran.code == 1
    assert "the guest gave up: Kernel panic - not syncing: on purpose" in ran.err
    console = (tmp_path / "logs/panics.console.log").read_text(errors="replace")
    assert console.startswith("=== firmware: bios\n")
    assert "Kernel panic - not syncing: on purpose" in console
    assert (tmp_path / "logs/panics.png").read_bytes().startswith(b"\x89PNG\r\n")


# Of "s3cret: word".
HASHED = (
    "$6$abcdefgh$fSRgusqCuDW37J2DajgksaNhHgBhnsPNS29IEM0p3tB31vbD"
    "QbqOyViys7Z2U8/dS5eMCzhs66RlI1eekR5uK1"
)
CHECKS = (
    *("console", "network", "units", "sshd", "key of root", "password of root", "ssh"),
    *("identity", "first boot", "permissions", "room"),
    *("root grows", "shutdown", "second boot"),
)


QUARANTINE = """\
[[quarantine]]
image = "panics"
issue = "https://example.org/issues/1"
until = {}
"""


def test_a_failed_boot_that_is_quarantined_is_a_warning_until_its_day(tmp_path):
    specs = SpecsRepo.create(tmp_path / "specs")
    specs.write("image-specs/panics", SPEC)
    disk = specs.disk("image-specs/files/panics.img")
    boot_sector(disk, says("Kernel panic - not syncing: on purpose\r\n"))
    specs.write("image-specs/quarantine.toml", QUARANTINE.format("2020-02-29"))
    specs.commit()
    ran = specs.run("build")
    assert ran.code == 1
    assert "panics: the quarantine ended on 2020-02-29: what it held back fails" in ran.err
    specs.write("image-specs/quarantine.toml", QUARANTINE.format("2999-12-31"))
    specs.commit()
    ran = specs.run("build")
    assert ran.code == 0, ran.err
    assert "warning: panics: boot test: boot test: the guest gave up" in ran.err
    shown = specs.run("repo", "show", "panics").out
    assert "failed (TCG: emulation without KVM), quarantined until 2999-12-31" in shown


OWN_TESTS = {
    "10-root": ({}, "id -u; touch /run/this-boot /root/this-disk; ! {reach}"),
    "20-fails": ({}, "ls /run/this-boot; echo on purpose >&2; exit 7"),
    "30-again": ({"reboot": True, "network": True}, "ls /root/this-disk; ! ls /run/this-boot"),
    "40-network": ({"network": True}, "i=0; until {reach}; do [ $((i+=1)) -lt 60 ]; sleep 1; done"),
    "50-panics": ({"network": True}, "echo c >/proc/sysrq-trigger; sleep 100"),
}


@pytest.fixture
def listener():
    """A port of this host where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def own_tests(port):
    """The tests of an image; ``reach`` is that a port of the host answers."""
    reach = f"timeout 5 bash -c 'exec 3<>/dev/tcp/10.0.2.2/{port}'"
    tests = tuple(
        GuestTest(spec="a", name=f"a.tests/{name}", path=name, **options)
        for name, (options, _) in OWN_TESTS.items()
    )

    def read(test):
        return f"#!/bin/sh\nset -e\n{OWN_TESTS[test.path][1].format(reach=reach)}\n".encode()

    return OwnTests(tests=tests, read=read, has_network=True)


def test_a_debian_boots_is_tested_and_lists_its_packages(boot, debian13_bios, tmp_path, listener):
    disk = tmp_path / "finished.qcow2"
    prepared = debian13_bios.image.copy(tmp_path)
    write_ext4(prepared.disk, "/root/deploy", "-----BEGIN OPENSSH PRIVATE KEY-----\n")
    # Else it would race sshd for the port.
    write_ext4(prepared.disk, "/etc/default/dropbear", "DROPBEAR_PORT=2222\n")
    shadow = read_ext4(prepared.disk, "/etc/shadow")
    hashed = re.sub(r"(?m)^root:[^:]*:", f"root:{HASHED}:", shadow)
    write_guest(prepared.disk, "/etc/shadow", hashed, 0o640)
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIEdBwC2yqLKk5kkXqTvvQQzCxkkLYFVKcJDMAmeGmeq/"
    authorize(prepared.disk, key)
    add_first_boot(prepared.disk)
    standalone(prepared.disk, prepared.format, disk, Runner())
    before = (sha1(disk), disk.stat().st_mtime_ns)
    accel = acceleration()
    tests = own_tests(listener)
    logins = Logins(passwords={"root": "s3cret: word"}, keys={"root": (key,)})
    booted = boot(
        disk,
        "qcow2",
        timeout=450,
        accel=accel,
        look_inside=True,
        operations=(Operation(name="upload", argument="deploy:/root/deploy", line=5),),
        grows=True,
        logins=logins,
        tests=tests,
    )
    assert booted.test.accel == accel.name
    assert booted.test.firmware == {"bios": booted.test.seconds}
    assert booted.test.seconds > 0
    assert booted.test.again > 0
    assert booted.test.checks == CHECKS
    assert booted.packages == debian13_bios.image.packages
    assert booted.boot_files == debian13_bios.image.boot_files
    # Not what the guest made when it started: the machine id, the host keys of sshd and dropbear,
    # the names of iSCSI and NVMe, the keys of bind and ssl-cert.
    assert booted.secrets == ("/root/deploy",)
    root, fails, again, network, panics = booted.test.tests
    assert (root.exit_code, root.output.splitlines()[0]) == (0, "0"), root
    assert (fails.exit_code, fails.output) == (7, "/run/this-boot\non purpose")
    assert again.has_passed, again
    assert network.has_passed, network
    assert "the guest gave up: Kernel panic - not syncing: sysrq" in panics.problem
    log, console = ((tmp_path / name).read_text() for name in ("log", "console, it.log"))
    assert log.count("+ qemu-system-x86_64") == 3
    assert log.count("+ ssh -F none") == 1
    # What the first start wrote is still there.
    assert console.count("Linux version") == 3
    assert (sha1(disk), disk.stat().st_mtime_ns) == before


def sha1(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
