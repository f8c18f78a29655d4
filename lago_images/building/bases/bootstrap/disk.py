"""Write a bootable disk from a folder: one partition, ext4, GRUB; no mount, no root."""

from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import BuildError, CommandError, ToolMissingError
from lago_images.host.process import Runner

SECTOR = 512
# 1 MiB: where partitioning tools start the first partition. GRUB lives in the gap before it.
START = 1024 * 1024
# Named one by one: mke2fs.conf differs between hosts, and GRUB 2.06 cannot read
# metadata_csum_seed or orphan_file, which newer e2fsprogs turn on.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
# What grub.cfg uses; the modules are in core.img, so the guest needs no GRUB package to boot.
_MODULES = (
    "biosdisk",
    "part_msdos",
    "ext2",
    "normal",
    "linux",
    "search",
    "search_fs_uuid",
    "configfile",
    "serial",
    "terminal",
    "test",
)
# boot.img's first 440 bytes are code; the partition table follows. At 0x5c is the sector of
# core.img, 1 as grub-core/boot/i386/pc/boot.S has it.
_BOOT_CODE = 440
_GRUB = Path("/usr/lib/grub/i386-pc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The disk to make: its size in bytes, and the root file system's UUID."""

    size: int
    uuid: str


def write_disk(
    rootfs: Path,
    disk: Path,
    layout: Layout,
    workdir: Path,
    runner: Runner,
    *,
    user: tuple[str, ...] = (),
) -> None:
    """Make ``disk``, raw and sparse, of what is in ``rootfs``.

    Args:
        rootfs: The root file system's content.
        disk: The file to make.
        layout: Its size and UUID.
        workdir: For intermediate files.
        runner: Starts the tools.
        user: A command's prefix under which ``rootfs``'s owners are what they will be in the
            guest.

    Raises:
        BuildError: The content does not fit.
    """
    with disk.open("wb") as file:
        file.truncate(layout.size)
    _partition(disk, runner)
    try:
        # fmt: off
        runner.run(
            [
                *user, "mke2fs", "-q", "-F",
                "-t", "ext4",
                "-b", "4096",
                "-O", _FEATURES,
                "-L", "root",
                "-U", layout.uuid,
                "-E", f"offset={START},root_owner=0:0",
                "-d", str(rootfs),
                str(disk), f"{(layout.size - START) // 1024}k",
            ],
            doing="writing the root file system",
        )
        # fmt: on
    except CommandError as error:
        raise BuildError(
            f"the root file system could not be made: {' / '.join(error.tail[-2:])}",
            hint=f"if it does not fit into {layout.size} bytes, set size= in the spec",
        ) from error
    _install_grub(disk, workdir, runner)


def _partition(disk: Path, runner: Runner) -> None:
    script = f"label: dos\nstart={START // SECTOR}, type=83, bootable\n"
    runner.capture(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)],
        stdin=script.encode(),
        doing="partitioning the disk",
    )


def _install_grub(disk: Path, workdir: Path, runner: Runner) -> None:
    if not (_GRUB / "boot.img").is_file():
        raise ToolMissingError(
            f"GRUB's files for BIOS machines are not in {_GRUB}",
            hint="apt-get install grub-pc-bin",
        )
    core = workdir / "core.img"
    # fmt: off
    runner.run(
        [
            "grub-mkimage",
            "-O", "i386-pc",
            "-p", "(hd0,msdos1)/boot/grub",
            "-o", str(core),
            *_MODULES,
        ],
        doing="making GRUB's image",
    )
    # fmt: on
    image = core.read_bytes()
    core.unlink()
    if len(image) > START - SECTOR:
        raise BuildError(f"GRUB's image has {len(image)} bytes: too many before the partition")
    with disk.open("r+b") as file:
        file.write((_GRUB / "boot.img").read_bytes()[:_BOOT_CODE])
        file.seek(SECTOR)
        file.write(image)
