"""Write a bootable disk from a folder: partitions, ext4, GRUB, shim; no mount, no root."""

from pathlib import Path

from lago_images.building.bases.bootstrap.layout import MIB, BiosLoader, Layout
from lago_images.building.ext4 import BLOCK, Place, fixed_times, write_ext4
from lago_images.building.superblocks import forget_writes
from lago_images.errors import BuildError, CommandError, ToolMissingError
from lago_images.host.process import Runner

# What grub.cfg uses, also the one that a guest's update-grub writes; the modules are in core.img,
# so nothing in the guest is needed to boot.
_MODULES = (
    "biosdisk",
    "part_msdos",
    "part_gpt",
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
# grub-mkimage synchronises what it writes, which a pipe refuses.
_MKIMAGE = 'out=$(mktemp) && grub-mkimage -o "$out" "$@" && cat "$out" && rm -f "$out"'
_GRUB = Path("usr/lib/grub/i386-pc")
_SHIM = "usr/lib/shim"
# UEFI specification 2.10, section 3.5.1.1: the end of the names of an architecture's programs; and
# GRUB's own name for the platform.
_PLATFORMS = {"x86_64": ("x64", "x86_64-efi"), "aarch64": ("aa64", "arm64-efi")}
# Debian's packages name what they signed; of Ubuntu's shims the newest has its name at the end, and
# the one without is a link that leads out of the folder that the guest is in.
_SHIM_FILES = {
    "Debian": ("shim{}.efi.signed", "mm{}.efi.signed", "fb{}.efi.signed"),
    "Ubuntu": ("shim{}.efi.signed.latest", "mm{}.efi", "fb{}.efi"),
}
# A distribution's signed GRUB looks for its menu in its own folder, whichever it was started from.
_ESP_MENU = """\
search.fs_uuid {uuid} root
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
"""


def esp_files(distribution: str, arch: str) -> dict[str, str]:
    """Return the files of the EFI system partition, and where in the guest each comes from.

    They lie where ``grub-install`` of the guest puts them when it renews them. The first folder is
    for firmware that remembers no disk, the second, the distribution's, for the one that does. No
    fallback program is in the first: it would reset the machine to start the second.
    """
    end, platform = _PLATFORMS[arch]
    shim, manager, fallback = (f"{_SHIM}/{name.format(end)}" for name in _SHIM_FILES[distribution])
    grub = f"usr/lib/grub/{platform}-signed/grub{end}.efi.signed"
    own, boot = f"EFI/{distribution.lower()}", f"BOOT{end.upper()}"
    return {
        f"EFI/BOOT/{boot}.EFI": shim,
        f"EFI/BOOT/grub{end}.efi": grub,
        f"EFI/BOOT/mm{end}.efi": manager,
        f"{own}/shim{end}.efi": shim,
        f"{own}/grub{end}.efi": grub,
        f"{own}/mm{end}.efi": manager,
        f"{own}/fb{end}.efi": fallback,
        f"{own}/{boot}.CSV": f"{_SHIM}/{boot}.CSV",
    }


def write_disk(
    rootfs: Path,
    disk: Path,
    layout: Layout,
    workdir: Path,
    runner: Runner,
    *,
    epoch: int,
    user: tuple[str, ...] = (),
) -> None:
    """Make ``disk``, raw and sparse, of what is in ``rootfs``.

    The same content and layout give the same bytes.

    Args:
        rootfs: The root file system's content.
        disk: The file to make.
        layout: Its partitions and identifiers.
        workdir: For intermediate files.
        runner: Starts the tools.
        epoch: Seconds; the time of everything that has no time of its own.
        user: A command's prefix under which ``rootfs``'s owners are what they will be in the
            guest.

    Raises:
        BuildError: The content does not fit.
        ToolMissingError: GRUB's files are missing, on the host or in the guest.
    """
    with disk.open("wb") as file:
        file.truncate(layout.size)
    runner.capture(
        # The disk is a file: no kernel has its partitions in use, or is to hear of them.
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)],
        stdin=layout.script.encode(),
        doing="partitioning the disk",
    )
    _write_root(rootfs, disk, layout, workdir, epoch, runner, user)
    if layout.has_bios:
        _install_grub(rootfs, disk, layout, runner, user)
    if layout.has_uefi:
        times = (f"{name}={value}" for name, value in fixed_times(epoch).items())
        _write_esp(rootfs, disk, layout, workdir, runner, (*user, "env", *times))


def _write_root(
    rootfs: Path,
    disk: Path,
    layout: Layout,
    workdir: Path,
    epoch: int,
    runner: Runner,
    user: tuple[str, ...],
) -> None:
    place = Place(
        start=layout.root_start,
        size=layout.root_size,
        uuid=layout.root_uuid,
        label="root",
        hash_seed=layout.hash_seed,
    )
    try:
        superblocks = write_ext4(
            str(rootfs.absolute()), str(disk.absolute()), place, workdir, epoch, runner, prefix=user
        )
    except CommandError as error:
        raise BuildError(
            f"the root file system could not be made: {' / '.join(error.tail[-2:])}",
            hint=f"if it does not fit into {layout.root_size} bytes, set size= in the spec",
        ) from error
    forget_writes(disk, layout.root_start, superblocks, BLOCK)


def _install_grub(
    rootfs: Path, disk: Path, layout: Layout, runner: Runner, user: tuple[str, ...]
) -> None:
    """Put GRUB for a BIOS onto the disk: the guest's own where it has one, else the host's."""
    inside: tuple[str, ...] = ()
    if layout.has_uefi:
        # The host's folder for temporary files is not in the guest.
        folder, inside = rootfs / _GRUB, (*user, "env", "TMPDIR=/tmp", "chroot", str(rootfs))
        hint = "the package grub-pc-bin was not bootstrapped"
    else:
        folder, hint = "/" / _GRUB, "apt-get install grub-pc-bin"
    if not (folder / "boot.img").is_file():
        raise ToolMissingError(f"GRUB's files for BIOS machines are not in {folder}", hint=hint)
    shell = [*inside, "sh", "-c", _MKIMAGE, "grub-mkimage"]
    core = runner.capture(
        [*shell, "-O", "i386-pc", "-p", layout.grub_prefix, *_MODULES],
        doing="making GRUB's image",
    )
    loader = BiosLoader.at(layout, (folder / "boot.img").read_bytes(), core)
    with disk.open("r+b") as file:
        # Less than its sector: the disk's identifier and the partition table stand behind it.
        file.write(loader.boot_code)
        file.seek(layout.core_start)
        file.write(loader.core)


def _write_esp(
    rootfs: Path,
    disk: Path,
    layout: Layout,
    workdir: Path,
    runner: Runner,
    prefix: tuple[str, ...],
) -> None:
    """Write the EFI system partition: the signed shim and GRUB, as the guest has them."""
    esp, menu = workdir / "esp.img", workdir / "esp-grub.cfg"
    menu.write_text(_ESP_MENU.format(uuid=layout.root_uuid), encoding="utf-8")
    sources = esp_files(layout.distribution, layout.arch)
    files = {name: str(rootfs / source) for name, source in sources.items()}
    own = f"EFI/{layout.distribution.lower()}"
    files[f"{own}/grub.cfg"] = str(menu)
    with esp.open("wb") as file:
        file.truncate(layout.esp.size)
    # fmt: off
    runner.run(
        [
            # --invariant: else the time of day is in it.
            *prefix, "mkfs.vfat", "--invariant",
            "-F", "32", "-n", "ESP", "-i", layout.esp_serial,
            str(esp),
        ],
        doing="making the EFI system partition",
    )
    # fmt: on
    # In place of the settings that whoever builds may have.
    mtools = [*prefix, "MTOOLSRC=/dev/null"]
    folders = ("::/EFI", "::/EFI/BOOT", f"::/{own}")
    runner.run([*mtools, "mmd", "-i", str(esp), *folders], doing="making the EFI system partition")
    for name, source in files.items():
        argv = [*mtools, "mcopy", "-i", str(esp), source, f"::/{name}"]
        runner.run(argv, doing=f"writing {name} to the EFI system partition")
    _write_into(disk, layout.esp.start, esp)
    esp.unlink()
    menu.unlink()


def _write_into(disk: Path, start: int, part: Path) -> None:
    """Write a file into the disk, without its empty pieces: the disk stays sparse."""
    with disk.open("r+b") as target, part.open("rb") as source:
        while piece := source.read(MIB):
            if any(piece):
                target.seek(start)
                target.write(piece)
            start += len(piece)
