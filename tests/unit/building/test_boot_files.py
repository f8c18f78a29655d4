"""What finish.sh tells of the files that a guest starts with, and what is made of it."""

import hashlib
import subprocess

import pytest

from lago_images.building.boot_files import from_answer
from lago_images.building.customise.identities import finish_script
from lago_images.building.customise.sysprep import read_reply
from lago_images.repository.records.boot_files import BootFile, BootFiles

DIGEST = "a" * 64


def answer(guest):
    """Run the function in a guest whose root is a folder, which has a table of mounts, too."""
    script = finish_script()
    for path in ("/boot", "/efi", "/etc/fstab", "/proc/mounts"):
        for before in " <":
            script = script.replace(f"{before}{path}", f"{before}{guest}{path}")
    done = subprocess.run(
        ["sh"], input=f"{script}\nboot_files\n", text=True, check=True, capture_output=True
    )
    assert done.stderr == ""
    return done.stdout.replace(f"{guest}", "").splitlines()


def listed(path, content):
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return BootFile(path=path, size=len(content), sha256=sha256)


@pytest.fixture
def guest(tmp_path):
    for path, content in {"boot/grub/grub.cfg": "menu", "boot/vm linuz": "kernel"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "boot/link").symlink_to("vm linuz")
    for folder in ("etc", "proc"):
        (tmp_path / folder).mkdir()
    return tmp_path


def test_sizes_and_digests_of_files_are_listed(guest):
    files = (listed("/boot/grub/grub.cfg", "menu"), listed("/boot/vm linuz", "kernel"))
    assert from_answer(answer(guest)) == BootFiles(files=files)
    (guest / "efi").mkdir()
    (guest / "efi/loader").write_text("loader")
    assert from_answer(answer(guest)).files[-1] == listed("/efi/loader", "loader")


def test_an_efi_system_partition_that_is_not_mounted_is_told(guest):
    folder = f"{guest}/boot/efi"
    table = (
        f"# {guest}/boot was on /dev/vda2\nUUID=1 / ext4\n/dev/disk/by-label/boot {folder} vfat\n"
    )
    (guest / "etc/fstab").write_text(table)
    (guest / "proc/mounts").write_text("/dev/vda1 / ext4 rw 0 0\n")
    assert from_answer(answer(guest)).unread == ("/boot/efi",)
    (guest / "proc/mounts").write_text(f"/dev/vda1 / ext4 rw 0 0\n/dev/vda2 {folder} vfat rw\n")
    assert from_answer(answer(guest)).unread == ()
    (guest / "proc/mounts").unlink()
    assert from_answer(answer(guest)).unread == ("/boot/efi",)


def test_a_guest_without_boot_files_tells_nothing(tmp_path):
    assert from_answer(answer(tmp_path)) is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["boot-size 1 /boot/a", f"boot-sha256 {DIGEST}  /boot/a"],
        ["boot-size 1 /boot/a", "boot-end"],
        ["boot-size 1 /boot/a", f"boot-sha256 {DIGEST}  /boot/b", "boot-end"],
        # As sha256sum writes a name with a newline.
        ["boot-size 1 /boot/a", "b", rf"boot-sha256 \{DIGEST}  /boot/a\nb", "boot-end"],
    ],
)
def test_an_answer_that_is_not_whole_is_not_recorded(lines):
    assert from_answer(lines) is None


def test_a_file_that_was_written_since_the_guest_started_is_not_listed(tmp_path):
    lines = ["boot-size 1 /boot/a", f"boot-sha256 {DIGEST}  /boot/a"]
    told = ["packages", "a 1 all", "end", *lines, "boot-end", "boot-unread /boot/a"]
    (tmp_path / "answer").write_text("\n".join(told))
    assert read_reply(tmp_path / "answer").boot_files == BootFiles(files=(), unread=("/boot/a",))
