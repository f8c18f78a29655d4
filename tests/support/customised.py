"""Disks that a spec's commands were run in: one launch of the real appliance each."""

import os
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise.sysprep import customise
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.settings import Settings
from tests.support.images import Image, a_context, a_spec, allocated, write_ext4

HEAD = "#name=c\n#base=layer:debian-12\n#arch=x86_64\n#distro=debian\n"
OPERATIONS = r"""root-password password:123456
hostname made-by-test
write /etc/motd:hello\
two
edit /etc/motd:s/hello/bye/
upload files/hello:/etc/hello
copy-in files/folder:/srv
run files/script.sh
link /etc/motd:/etc/linked
run-command env > /etc/env-seen; ls /sys/class/net > /etc/nets-seen
run-command echo left > /var/log/left.log; echo left > /tmp/left; echo 1 > /var/lib/apt/lists/left
firstboot-command echo first
firstboot-command echo first
run-command echo '# made by a test' >> /boot/grub/grub.cfg
run-command (echo '-----BEGIN PRIVATE KEY-----'; echo x) > /etc/made.key
run-command mkdir /etc/nvme; cd /etc/nvme; echo x > hostid; echo x > /etc/ssh/ssh_host_rsa_key
run-command dd if=/dev/urandom of=/var/big bs=1M count=120 && sync && rm /var/big
"""
# In the environment of whoever builds.
SECRET = "not for guests"
PROXY = "http://me:not-for-guests@proxy.example:3128"


@dataclass(frozen=True, slots=True, kw_only=True)
class Customised:
    """A customised disk; its allocated bytes before; what the launch logged."""

    prepared: Prepared
    before: int
    work: Path
    log: str


def run_commands(folder: Path, image: Image, text: str, *, fstab: str = "") -> Customised:
    """Customise a copy of an image by the commands ``text``, without a network.

    Args:
        folder: For the disk, a repository's root with host files, and the log.
        image: The disk to copy.
        text: The commands.
        fstab: In place of the disk's own ``/etc/fstab``.
    """
    _write_host_files(folder / "root" / "files")
    environ = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "GITHUB_TOKEN": SECRET,
        "http_proxy": PROXY,
    }
    context = a_context(folder, settings=Settings(network=False, folder=folder), environ=environ)
    work = folder / "work"
    work.mkdir()
    prepared = image.copy(work)
    if fstab:
        write_ext4(prepared.disk, "/etc/fstab", fstab)
    before = allocated(prepared.disk)
    runner = Runner(environ=environ, log=folder / "log")
    accel = Acceleration(name="tcg")
    after = customise(a_spec(HEAD + text), prepared, work, context, runner, accel=accel)
    return Customised(prepared=after, before=before, work=work, log=(folder / "log").read_text())


def _write_host_files(files: Path) -> None:
    (files / "folder").mkdir(parents=True)
    (files / "hello").write_text("hello")
    (files / "folder" / "inner").write_text("inner")
    (files / "script.sh").write_text("#!/bin/sh\necho ran > /etc/ran\n")
