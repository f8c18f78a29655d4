"""Superblocks without the count of what was written, as e2fsprogs reads them."""

import subprocess

from lago_images.building.superblocks import forget_writes
from tests.tools import need

need("mke2fs", "dumpe2fs", "e2fsck")
START = 2**20
# With blocks of 4 KiB, a group has 128 MiB; the second and the fourth have copies.
GROUPS = (0, 32768, 98304)


def make(disk):
    options = (
        "-b",
        "4096",
        "-O",
        "metadata_csum,sparse_super,^resize_inode",
        "-E",
        f"offset={START}",
    )
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", *options, disk, str(400 * 1024) + "k"]
    with disk.open("wb") as file:
        file.truncate(START + 400 * 2**20)
    subprocess.run(argv, check=True, capture_output=True)


def told(disk, *options):
    argv = ["dumpe2fs", *options, "-h", f"{disk}?offset={START}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_count_is_gone_from_all_superblocks_and_the_rest_is_whole(tmp_path):
    disk = tmp_path / "disk"
    make(disk)
    assert "Lifetime writes:" in told(disk)
    forget_writes(disk, START, GROUPS, 4096)
    for group in GROUPS[1:]:
        assert "Lifetime writes:" not in told(disk, f"-osuperblock={group}", "-oblocksize=4096")
    assert "Lifetime writes:" not in told(disk)
    # It would complain of checksums, and of copies that differ.
    argv = ["e2fsck", "-f", "-n", f"{disk}?offset={START}"]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr.count("\n")) == (0, 1), checked.stdout
